/*
 * model.c: loading a model and answering questions about it.
 *
 * Weights stay where the file was mapped, shared through the page cache with everybody who maps the
 * same file, until q3_model_pack() (image.c) has packed those that can be. A q3_model owns the
 * mappings, the tokenizer and small copies of its vectors; it does not change after that.
 */
#include "model/image.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "model/output.h"

#define DIGEST_CHUNK ((size_t) 4 << 20)
#define MAX_NAME 256

/* A copy of general.name that is valid UTF-8, whatever the file holds. */
static char *
copy_name(const q3_gguf *g)
{
	q3_str name = {"", 0};
	size_t len;

	q3_gguf_get_str(g, "general.name", &name);
	return q3_utf8_repair(name.data, name.len < MAX_NAME ? name.len : MAX_NAME, &len);
}

static void
report(const q3_load_options *options, uint64_t done, uint64_t total)
{
	if (options != NULL && options->progress != NULL)
		options->progress(options->progress_arg, done, total);
}

static q3_code
hash_file(q3_model *m, const q3_load_options *options, q3_error *err)
{
	size_t size, done = 0;
	const unsigned char *data = q3_gguf_data(m->gguf, &size);
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned int hash_len = 0;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

	report(options, 0, size);
	while (ok && done < size)
	{
		size_t n = size - done < DIGEST_CHUNK ? size - done : DIGEST_CHUNK;

		ok = EVP_DigestUpdate(ctx, data + done, n) == 1;
		done += n;
		report(options, done, size);
	}
	ok = ok && EVP_DigestFinal_ex(ctx, hash, &hash_len) == 1 && hash_len == 32;
	EVP_MD_CTX_free(ctx);
	if (!ok)
		return q3_fail(err, Q3_ERR_INTERNAL, "could not compute the digest of the model file");
	for (unsigned int i = 0; i < hash_len; i++)
	{
		m->info.digest[2 * i] = "0123456789abcdef"[hash[i] >> 4];
		m->info.digest[2 * i + 1] = "0123456789abcdef"[hash[i] & 15];
	}
	return Q3_OK;
}

static q3_code
set_digest(q3_model *m, const q3_load_options *options, q3_error *err)
{
	if (options != NULL && options->skip_digest)
		return Q3_OK;
	if (options == NULL || options->known_digest == NULL)
		return hash_file(m, options, err);
	if (strlen(options->known_digest) != 64 ||
	    strspn(options->known_digest, "0123456789abcdef") != 64)
		return q3_fail(err, Q3_ERR_INVALID, "digest is not a SHA-256 in lower-case hexadecimal");
	memcpy(m->info.digest, options->known_digest, 65);
	report(options, m->info.file_bytes, m->info.file_bytes);
	return Q3_OK;
}

static q3_code
load(q3_model *m, const char *path, const q3_load_options *options, q3_error *err)
{
	q3_code code;
	size_t size;

	m->gguf = q3_gguf_open(path, err);
	if (m->gguf == NULL)
		return err->code;
	q3_gguf_data(m->gguf, &size);
	m->info.file_bytes = size;
	m->name = copy_name(m->gguf);
	if (m->name == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	m->info.name = m->name;
	code = q3_model_read_numbers(m, err);
	if (code != Q3_OK)
		return code;
	m->tokenizer = q3_tokenizer_create(m->gguf, err);
	if (m->tokenizer == NULL)
		return err->code;
	code = q3_model_bind(m, err);
	return code != Q3_OK ? code : set_digest(m, options, err);
}

q3_model *
q3_model_load(const char *path, const q3_load_options *options, q3_error *err)
{
	q3_error local;
	q3_model *m = calloc(1, sizeof(*m));

	if (err == NULL)
		err = &local;
	if (m == NULL)
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	if (load(m, path, options, err) != Q3_OK)
	{
		q3_model_free(m);
		return NULL;
	}
	return m;
}

void
q3_model_free(q3_model *m)
{
	if (m == NULL)
		return;
	q3_image_free(m);
	q3_tokenizer_free(m->tokenizer);
	q3_gguf_close(m->gguf);
	free(m->name);
	free(m->layers);
	free(m->vectors);
	free(m);
}

const q3_model_info *
q3_model_get_info(const q3_model *m)
{
	return &m->info;
}

const q3_tokenizer *
q3_model_tokenizer(const q3_model *m)
{
	return m->tokenizer;
}

const q3_gguf *
q3_model_gguf(const q3_model *m)
{
	return m->gguf;
}

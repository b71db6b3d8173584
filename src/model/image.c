/*
 * image.c: packing a model's matrices, and finding them packed already.
 *
 * q3_model_pack() runs on the loading thread and shares the packing among a pool of its own. What
 * it makes or finds belongs to the q3_model: descriptor and read-only mapping live as long.
 */
#include "model/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#define MATRICES_PER_LAYER 7
#define PANELS_PER_CHUNK 4
#define HASH_BYTES 32 /* SHA-256 */
#define BYTE_ORDER_MARK 0x01020304u
#define IMAGE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* Huge pages: reading is a fifth to a quarter faster than with small ones. */
#define HUGE_PAGE ((size_t) 2 << 20)
#define HUGE_PAGES_PER_CHUNK 4
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

typedef struct image_entry
{
	uint32_t index; /* in the model's order of matrices */
	uint32_t type;  /* of the source */
	uint32_t kind;  /* q3_planes_kind */
	int32_t rows, cols;
	uint32_t unused;
	uint64_t offset, bytes; /* in the image; offset is a multiple of 64 */
} image_entry;

typedef struct image_header
{
	char magic[8];
	uint32_t version, byte_order;
	uint64_t image_bytes;
	char digest[64]; /* of the model file; zero when that is not known */
	uint32_t n_entries, unused;
	image_entry entries[];
} image_header;

_Static_assert(sizeof(image_header) == 96 && sizeof(image_entry) == 40, "no padding");

/* ---- What an image of this model has to look like ---- */

/* The i-th matrix, the head first; NULL behind the last. */
static q3_weights *
weights_at(q3_model *m, uint32_t i)
{
	q3_layer *l;

	if (i == 0)
		return &m->output;
	if ((i - 1) / MATRICES_PER_LAYER >= (uint32_t) m->info.n_layers)
		return NULL;
	l = &m->layers[(i - 1) / MATRICES_PER_LAYER];
	q3_weights *const all[MATRICES_PER_LAYER] = {&l->q,    &l->k,  &l->v,   &l->attn_output,
	                                             &l->gate, &l->up, &l->down};
	return all[(i - 1) % MATRICES_PER_LAYER];
}

static uint64_t
align(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

/* Header and table, malloc'ed; NULL when out of memory. */
static image_header *
make_header(q3_model *m, size_t *header_bytes)
{
	uint32_t n = 0;
	image_header *h;

	for (uint32_t i = 0; weights_at(m, i) != NULL; i++)
		n += q3_planes_kind_for(weights_at(m, i)->file.type) != 0;
	*header_bytes = sizeof(image_header) + n * sizeof(image_entry);
	h = calloc(1, *header_bytes);
	if (h == NULL)
		return NULL;
	memcpy(h->magic, "qwen3dm\n", 8);
	h->version = Q3_IMAGE_VERSION;
	h->byte_order = BYTE_ORDER_MARK;
	memcpy(h->digest, m->info.digest, strlen(m->info.digest));
	h->image_bytes = align(*header_bytes + HASH_BYTES, 4096);
	for (uint32_t i = 0; weights_at(m, i) != NULL; i++)
	{
		const q3_matrix *w = &weights_at(m, i)->file;
		int kind = q3_planes_kind_for(w->type);
		image_entry *e = &h->entries[h->n_entries];

		if (kind == 0)
			continue;
		*e = (image_entry){.index = i,
		                   .type = w->type,
		                   .kind = (uint32_t) kind,
		                   .rows = w->rows,
		                   .cols = w->cols,
		                   .offset = h->image_bytes,
		                   .bytes = q3_planes_bytes((q3_planes_kind) kind, w->rows, w->cols)};
		h->image_bytes = align(e->offset + e->bytes, 64);
		h->n_entries++;
	}
	return h;
}

static void
place(const image_entry *e, const void *base, q3_planes *planes)
{
	q3_planes_place(planes, (q3_planes_kind) e->kind, e->rows, e->cols,
	                (const char *) base + e->offset);
}

/* Maps it where huge pages can be; NULL and errno on failure. */
static void *
map_image(int fd, size_t bytes, int protection)
{
	size_t room = bytes + HUGE_PAGE, page = (size_t) sysconf(_SC_PAGESIZE), end;
	char *all = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *base;

	if (all == MAP_FAILED)
		return NULL;
	base = (char *) align((uintptr_t) all, HUGE_PAGE);
	if (mmap(base, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
	{
		munmap(all, room);
		return NULL;
	}
	end = (size_t) (base - all) + align(bytes, page);
	if (base > all)
		munmap(all, (size_t) (base - all));
	if (end < room)
		munmap(all + end, room - end);
	return base;
}

/* The hash of the planes, which stands behind the table; false if it cannot be computed. */
static bool
hash_planes(const char *base, const image_header *header, unsigned char *hash)
{
	uint64_t first = header->entries[0].offset;

	return EVP_Digest(base + first, header->image_bytes - first, hash, NULL, EVP_sha256(), NULL) ==
	       1;
}

static bool
planes_are_intact(const char *base, const image_header *header, size_t header_bytes)
{
	unsigned char hash[EVP_MAX_MD_SIZE];

	return hash_planes(base, header, hash) && memcmp(hash, base + header_bytes, HASH_BYTES) == 0;
}

/*
 * Maps what fd holds if it is exactly the image that header describes, and points the model's
 * matrices into it. On success the descriptor belongs to the model. check_planes: they come from a
 * disk, which may have lost or changed some of their bytes.
 */
static bool
attach(q3_model *m, const image_header *header, size_t header_bytes, int fd, bool check_planes)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS); /* -1: no memfd */
	void *base;

	if (fstat(fd, &st) != 0 || (uint64_t) st.st_size != header->image_bytes ||
	    (seals >= 0 && (seals & IMAGE_SEALS) != IMAGE_SEALS))
		return false;
	base = map_image(fd, header->image_bytes, PROT_READ);
	if (base == NULL)
		return false;
	if (memcmp(base, header, header_bytes) != 0 ||
	    (check_planes && !planes_are_intact(base, header, header_bytes)))
	{
		munmap(base, header->image_bytes);
		return false;
	}
	m->image = base;
	m->image_info.bytes = header->image_bytes;
	m->image_info.fd = fd;
	for (uint32_t i = 0; i < header->n_entries; i++)
		place(&header->entries[i], base, &weights_at(m, header->entries[i].index)->planes);
	return true;
}

/* ---- Packing ---- */

typedef struct packing
{
	q3_planes planes;
	const q3_matrix *w;
	float *scratch;
	size_t scratch_floats; /* of a thread */
} packing;

static void
pack_chunk(void *arg, int32_t chunk, int32_t thread)
{
	const packing *p = arg;
	int32_t n = (p->w->rows + Q3_PANEL_ROWS - 1) / Q3_PANEL_ROWS, begin = chunk * PANELS_PER_CHUNK;
	int32_t end = begin + PANELS_PER_CHUNK < n ? begin + PANELS_PER_CHUNK : n;

	q3_planes_pack(&p->planes, p->w, begin, end, p->scratch + (size_t) thread * p->scratch_floats);
}

/* The file's pages of a packed matrix are not needed any more; they come back if they are. */
static void
drop_source(const q3_matrix *w)
{
	uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE), begin = (uintptr_t) w->data;
	uintptr_t end = (begin + w->row_bytes * (size_t) w->rows) / page * page;

	begin = (begin + page - 1) / page * page;
	if (begin < end)
		madvise((void *) begin, end - begin, MADV_DONTNEED);
}

/* Makes huge pages of the small ones; where the system cannot or may not, they stay small. */
static void
collapse_chunk(void *arg, int32_t chunk, int32_t thread)
{
	char *base = arg;
	size_t bytes = HUGE_PAGES_PER_CHUNK * HUGE_PAGE;

	(void) thread;
	(void) madvise(base + (size_t) chunk * bytes, bytes, MADV_COLLAPSE);
}

static void
pack_all(q3_model *m, const image_header *header, char *base, packing *p, q3_threads *threads,
         const q3_pack_options *o)
{
	size_t huge = header->image_bytes / (HUGE_PAGES_PER_CHUNK * HUGE_PAGE);
	uint64_t done = 0;

	q3_threads_run(threads, collapse_chunk, base, (int32_t) huge, NULL);
	for (uint32_t i = 0; i < header->n_entries; i++)
	{
		const image_entry *e = &header->entries[i];
		int32_t panels = (e->rows + Q3_PANEL_ROWS - 1) / Q3_PANEL_ROWS;

		p->w = &weights_at(m, e->index)->file;
		place(e, base, &p->planes);
		q3_threads_run(threads, pack_chunk, p, (panels + PANELS_PER_CHUNK - 1) / PANELS_PER_CHUNK,
		               NULL);
		drop_source(p->w);
		done += e->bytes;
		if (o->progress != NULL)
			o->progress(o->progress_arg, done, header->image_bytes);
	}
}

/* Fills the file behind fd, which is empty, with the image; hashed: with the hash of its planes. */
static q3_code
fill(q3_model *m, const image_header *header, size_t header_bytes, int fd, const q3_pack_options *o,
     bool hashed, q3_error *err)
{
	q3_code code = Q3_OK;
	packing p = {.scratch_floats = 0};
	int rc = posix_fallocate(fd, 0, (off_t) header->image_bytes);
	q3_threads *threads;
	char *base;

	/* Taken before it is written to: a mapped file without room for a page means SIGBUS. */
	if (rc != 0)
		return q3_fail(err, Q3_ERR_MEMORY, "could not get %" PRIu64 " bytes for the image: %s",
		               header->image_bytes, strerror(rc));
	for (uint32_t i = 0; i < header->n_entries; i++)
		if (p.scratch_floats < (size_t) header->entries[i].cols * Q3_PANEL_ROWS)
			p.scratch_floats = (size_t) header->entries[i].cols * Q3_PANEL_ROWS;
	threads = q3_threads_create(o->threads == 0 ? q3_threads_available() : o->threads, err);
	if (threads == NULL)
		return err->code;
	p.scratch = malloc((size_t) q3_threads_count(threads) * p.scratch_floats * sizeof(float));
	base = map_image(fd, header->image_bytes, PROT_READ | PROT_WRITE);
	if (base != NULL && p.scratch != NULL)
	{
		pack_all(m, header, base, &p, threads, o);
		memcpy(base, header, header_bytes);
		if (hashed && !hash_planes(base, header, (unsigned char *) base + header_bytes))
			code = q3_fail(err, Q3_ERR_INTERNAL, "could not compute the hash of the image");
	}
	else
		code = q3_fail(err, Q3_ERR_MEMORY, "could not map %" PRIu64 " bytes for the image",
		               header->image_bytes);
	q3_threads_free(threads);
	free(p.scratch);
	if (base != NULL)
		munmap(base, header->image_bytes);
	return code;
}

/* In memory that nobody can change once it is packed. */
static q3_code
build(q3_model *m, const image_header *header, size_t header_bytes, const q3_pack_options *o,
      q3_error *err)
{
	int fd = memfd_create("qwen3dm image", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	q3_code code;

	if (fd < 0)
		return q3_fail(err, Q3_ERR_IO, "could not create the image: %s", strerror(errno));
	code = fill(m, header, header_bytes, fd, o, false, err);
	if (code == Q3_OK && (fcntl(fd, F_ADD_SEALS, IMAGE_SEALS | F_SEAL_SEAL) != 0 ||
	                      !attach(m, header, header_bytes, fd, false)))
		code = q3_fail(err, Q3_ERR_IO, "could not seal and map the image: %s", strerror(errno));
	if (code != Q3_OK)
		close(fd);
	else
		m->image_info.source = Q3_IMAGE_BUILT;
	return code;
}

/* ---- The cache on disk ---- */

/* The first problem is the one to tell. */
static void __attribute__((format(printf, 2, 3))) note_problem(q3_model *m, const char *fmt, ...)
{
	va_list args;

	if (m->image_info.problem[0] != '\0')
		return;
	va_start(args, fmt);
	vsnprintf(m->image_info.problem, sizeof(m->image_info.problem), fmt, args);
	va_end(args);
}

static bool
attach_cached(q3_model *m, const image_header *header, size_t header_bytes, const char *path,
              bool check_planes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
	{
		if (errno != ENOENT)
			note_problem(m, "could not open image \"%s\": %s", path, strerror(errno));
		return false;
	}
	if (attach(m, header, header_bytes, fd, check_planes))
	{
		m->image_info.source = Q3_IMAGE_CACHED;
		return true;
	}
	close(fd);
	note_problem(m, "image \"%s\" is damaged or of another model", path);
	return false;
}

/* An empty file that nobody else is writing to; -1 otherwise. */
static int
open_new(const char *path)
{
	struct stat a, b;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -1;
	/* Another engine may have renamed it between our open() and our flock(). */
	if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &a) == 0 && stat(path, &b) == 0 &&
	    a.st_dev == b.st_dev && a.st_ino == b.st_ino && ftruncate(fd, 0) == 0)
		return fd;
	close(fd);
	return -1;
}

/* True once the names in dir are on disk, too. */
static bool
sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

/* Builds the image in the cache; false, with a note, when that is not possible. */
static bool
build_cached(q3_model *m, const image_header *header, size_t header_bytes, const char *path,
             const q3_pack_options *o)
{
	char new_path[4096 + 16];
	q3_error err = {0};
	int fd;
	bool ok;

	snprintf(new_path, sizeof(new_path), "%s.new", path);
	fd = open_new(new_path);
	if (fd < 0)
	{
		note_problem(m, "could not write image \"%s\": %s", new_path, strerror(errno));
		return false;
	}
	ok = fill(m, header, header_bytes, fd, o, true, &err) == Q3_OK;
	if (!ok)
		note_problem(m, "could not write image \"%s\": %s", new_path, err.message);
	else if (fsync(fd) != 0 || rename(new_path, path) != 0 || !sync_dir(o->cache_dir))
	{
		ok = false;
		note_problem(m, "could not write image \"%s\": %s", path, strerror(errno));
	}
	if (!ok)
		unlink(new_path);
	close(fd);
	if (!ok || !attach_cached(m, header, header_bytes, path, false))
		return false;
	m->image_info.source = Q3_IMAGE_BUILT;
	return true;
}

/* ---- Where an image can come from ---- */

static q3_code
find_or_build(q3_model *m, const image_header *header, size_t header_bytes,
              const q3_pack_options *o, q3_error *err)
{
	char path[4096];
	bool known = m->info.digest[0] != '\0';
	bool cache = known && o->cache_dir != NULL && o->cache_dir[0] != '\0';

	if (o->fd > 0)
	{
		if (known && attach(m, header, header_bytes, o->fd, false))
		{
			m->image_info.source = Q3_IMAGE_KEPT;
			return Q3_OK;
		}
		close(o->fd);
		note_problem(m, "the image kept from before does not fit this model");
	}
	if (cache && snprintf(path, sizeof(path), "%s/%s.v%d.q3image", o->cache_dir, m->info.digest,
	                      Q3_IMAGE_VERSION) >= (int) sizeof(path))
	{
		note_problem(m, "the name of the image cache is too long");
		cache = false;
	}
	if (cache && (attach_cached(m, header, header_bytes, path, true) ||
	              build_cached(m, header, header_bytes, path, o)))
		return Q3_OK;
	return build(m, header, header_bytes, o, err);
}

q3_code
q3_model_pack(q3_model *m, const q3_pack_options *options, q3_error *err)
{
	const q3_pack_options defaults = {0};
	q3_error local;
	size_t header_bytes;
	image_header *header = make_header(m, &header_bytes);
	q3_code code = Q3_OK;

	if (err == NULL)
		err = &local;
	if (options == NULL)
		options = &defaults;
	if (header == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (m->image != NULL)
		code = q3_fail(err, Q3_ERR_INVALID, "model is packed already");
	else if (header->n_entries > 0)
		code = find_or_build(m, header, header_bytes, options, err);
	else if (options->fd > 0)
		close(options->fd);
	free(header);
	return code;
}

const q3_image_info *
q3_model_image(const q3_model *m)
{
	return &m->image_info;
}

void
q3_image_free(q3_model *m)
{
	if (m->image == NULL)
		return;
	munmap(m->image, m->image_info.bytes);
	close(m->image_info.fd);
	m->image = NULL;
}

/*
 * reduce.c: one answer about more text than fits into the context: map, then reduce in a tree.
 *
 * Texts are packed, in their order, into chunks that fit. While all is in one chunk, that is what
 * the answer is asked about. As soon as there is a second one, each full chunk becomes a request,
 * and the answers are the texts of the level above, where the same happens. All requests of a level
 * are under way together, up to a window; the answers are taken in order, so that chunks, and with
 * them all requests, follow from the texts alone and not from when answers come. Every chunk above
 * the lowest level has two texts or more (a text that is left alone goes up as it is), so that each
 * level has at most half the chunks of the one below.
 *
 * A text of n bytes has at most n tokens. Only where that bound says that it may not fit are tokens
 * counted, by the engine.
 *
 * The memory is in the context that the creator gives; requests outlive subtransactions, and are
 * dropped when that context goes.
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "extension/call.h"
#include "extension/client.h"
#include "extension/connection.h"
#include "extension/reduce.h"
#include "extension/shmem.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Requests of one level that are under way together. */
#define WINDOW 64
/* Between the texts of a chunk. */
#define SEPARATOR "\n---\n"
#define SEPARATOR_BYTES 5
/* Tokens of the chat format around instruction and texts, and some to spare. */
#define TEMPLATE_TOKENS 64
/* Less room than that is not worth starting with. */
#define MIN_ROOM 64
/* Longer texts are cut before their tokens are counted. */
#define MAX_TEXT (1024 * 1024)

/* A chunk that was closed: the request about it, or a text that goes up as it is. */
typedef struct Part
{
	uint64 id; /* of the request; 0: none */
	q3p_bytes text;
} Part;

typedef struct Level
{
	StringInfoData open; /* the chunk that is being filled; no data before it has a text */
	int n_open;          /* texts in it */
	int counted;         /* bytes at its beginning that were counted */
	int64 tokens;        /* of these */
	List *parts;         /* closed chunks, oldest first: texts of the next level */
} Level;

struct Qwen3dmReducer
{
	MemoryContext context;
	MemoryContextCallback at_end;
	Qwen3dmOptions options;
	q3p_bytes first, further;
	int64 budget;    /* tokens of texts in one request */
	int part_tokens; /* of the answer to a request that is not the last */
	List *levels;    /* of Level * */
};

/* ---------------------------------------------------------------------------------------------
 * Making
 * --------------------------------------------------------------------------------------------- */

static void
drop_requests(void *arg)
{
	Qwen3dmReducer *r = arg;
	ListCell *level, *part;

	foreach (level, r->levels)
	{
		foreach (part, ((Level *) lfirst(level))->parts)
		{
			uint64 id = ((Part *) lfirst(part))->id;
			Qwen3dmRequest *request = id != 0 ? qwen3dm_reattach(id) : NULL;

			if (request != NULL)
				qwen3dm_release(request);
		}
	}
	r->levels = NIL;
}

static q3p_bytes
copy_bytes(q3p_bytes bytes)
{
	return (q3p_bytes){memcpy(palloc(bytes.len + 1), bytes.data, bytes.len), bytes.len};
}

/* Of a request, waiting for the model if need be. */
static int
context_length(void)
{
	Qwen3dmStatus *status = palloc(sizeof(Qwen3dmStatus));
	int length;

	qwen3dm_status_read(QWEN3DM_MAIN, status);
	if (status->context_length == 0)
	{
		qwen3dm_connection_open(QWEN3DM_MAIN);
		qwen3dm_status_read(QWEN3DM_MAIN, status);
	}
	length = status->context_length;
	pfree(status);
	return length;
}

bool
qwen3dm_surely_fits(q3p_bytes text, q3p_bytes instruction)
{
	/* The part that a reducer would leave for the answer. */
	return text.len <= MAX_TEXT && instruction.len <= MAX_TEXT &&
	       (int64) (text.len + instruction.len + TEMPLATE_TOKENS) <= context_length() / 8 * 7;
}

static bool
count_tokens(Qwen3dmReducer *r, q3p_bytes text, int64 *n, Qwen3dmFailure *failure)
{
	q3p_request message = {.kind = Q3P_COUNT_TOKENS,
	                       .priority = r->options.request.priority,
	                       .role = r->options.request.role,
	                       .prompt = text};
	Qwen3dmRequest *request = qwen3dm_submit(&message, NULL);

	qwen3dm_wait(request);
	if (request->failure.sqlstate != 0)
		qwen3dm_copy_failure(failure, &request->failure);
	*n = request->result.prompt_tokens;
	qwen3dm_release(request);
	return failure->sqlstate == 0;
}

/* Divides the context between instruction, texts and answer. */
static bool
make_budget(Qwen3dmReducer *r, Qwen3dmFailure *failure)
{
	int length = context_length();
	q3p_bytes longer = r->first.len > r->further.len ? r->first : r->further;
	int64 tokens = longer.len;
	int64 room;

	if (tokens > length / 16 && !count_tokens(r, longer, &tokens, failure))
		return false;
	room = length - tokens - TEMPLATE_TOKENS;
	if (room < MIN_ROOM)
	{
		failure->sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		failure->message =
		    psprintf("the instruction leaves no room for texts in a context of %d tokens", length);
		failure->detail = NULL;
		failure->hint = "Shorten it, or increase qwen3dm.context_length if the model allows.";
		return false;
	}
	/* An eighth, so that at least two answers to parts fit into a request, even if they have more
	 * tokens when they are read than when they were written. */
	r->part_tokens = (int) Min(r->options.request.max_tokens, room / 8);
	r->budget = room - r->part_tokens;
	return true;
}

Qwen3dmReducer *
qwen3dm_reducer_create(MemoryContext context, const Qwen3dmOptions *options, q3p_bytes first,
                       q3p_bytes further, Qwen3dmFailure *failure)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Qwen3dmReducer *r = palloc0(sizeof(Qwen3dmReducer));

	memset(failure, 0, sizeof(*failure));
	r->context = context;
	r->options = *options;
	r->first = copy_bytes(first);
	r->further = copy_bytes(further);
	r->at_end.func = drop_requests;
	r->at_end.arg = r;
	MemoryContextRegisterResetCallback(context, &r->at_end);
	MemoryContextSwitchTo(old);
	return make_budget(r, failure) ? r : NULL;
}

q3p_bytes
qwen3dm_reducer_instruction(const Qwen3dmReducer *r)
{
	return r->first;
}

q3p_bytes
qwen3dm_reducer_further_instruction(const Qwen3dmReducer *r)
{
	return r->further;
}

/* ---------------------------------------------------------------------------------------------
 * Chunks
 * --------------------------------------------------------------------------------------------- */

static Level *
get_level(Qwen3dmReducer *r, int k)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);

	while (list_length(r->levels) <= k)
		r->levels = lappend(r->levels, palloc0(sizeof(Level)));
	MemoryContextSwitchTo(old);
	return list_nth(r->levels, k);
}

/* At least as many as it has. */
static int64
tokens_open(const Level *l)
{
	return l->tokens + (l->open.len - l->counted);
}

static bool
has_room(const Qwen3dmReducer *r, const Level *l, int64 tokens)
{
	return tokens_open(l) + SEPARATOR_BYTES + tokens <= r->budget;
}

/* Counts what is not counted yet. */
static bool
count_open(Qwen3dmReducer *r, Level *l, Qwen3dmFailure *failure)
{
	q3p_bytes rest = {l->open.data + l->counted, l->open.len - l->counted};
	int64 tokens;

	if (rest.len == 0)
		return true;
	if (!count_tokens(r, rest, &tokens, failure))
		return false;
	l->tokens += tokens;
	l->counted = l->open.len;
	return true;
}

/* Behind the texts of the open chunk; n texts in one. tokens: -1 when they are not counted, else
 * all that stands before is, too. */
static void
append_text(Qwen3dmReducer *r, Level *l, q3p_bytes text, int n, int64 tokens)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);

	if (l->open.data == NULL)
		initStringInfo(&l->open);
	if (l->n_open > 0)
		appendBinaryStringInfo(&l->open, SEPARATOR, SEPARATOR_BYTES);
	appendBinaryStringInfo(&l->open, text.data, (int) text.len);
	l->n_open += n;
	if (tokens >= 0)
	{
		l->tokens += SEPARATOR_BYTES + tokens;
		l->counted = l->open.len;
	}
	MemoryContextSwitchTo(old);
}

static q3p_request
request_about(const Qwen3dmReducer *r, const Level *l, int k)
{
	q3p_request message = qwen3dm_request_for(&r->options, (q3p_bytes){l->open.data, l->open.len});

	message.system = k == 0 ? r->first : r->further;
	return message;
}

static bool take_part(Qwen3dmReducer *r, int k, Qwen3dmFailure *failure);

/* The open chunk is full. */
static bool
close_chunk(Qwen3dmReducer *r, int k, Qwen3dmFailure *failure)
{
	Level *l = get_level(r, k);
	MemoryContext old;
	Part *part;

	while (l->parts != NIL && (list_length(l->parts) >= WINDOW || qwen3dm_is_congested()))
	{
		if (!take_part(r, k, failure))
			return false;
	}
	old = MemoryContextSwitchTo(r->context);
	part = palloc0(sizeof(Part));
	if (k > 0 && l->n_open == 1)
		part->text = copy_bytes((q3p_bytes){l->open.data, l->open.len});
	else
	{
		q3p_request message = request_about(r, l, k);
		Qwen3dmRequest *request;

		message.max_tokens = r->part_tokens;
		request = qwen3dm_submit(&message, &r->options.lists);
		part->id = request->id;
		qwen3dm_detach(request);
	}
	l->parts = lappend(l->parts, part);
	MemoryContextSwitchTo(old);
	resetStringInfo(&l->open);
	l->n_open = 0;
	l->counted = 0;
	l->tokens = 0;
	return true;
}

/* Takes a counted text that fits into a chunk of its own. */
static bool
place(Qwen3dmReducer *r, int k, q3p_bytes text, int n, int64 tokens, Qwen3dmFailure *failure)
{
	Level *l = get_level(r, k);

	if (l->n_open > 0 && !has_room(r, l, tokens) && !close_chunk(r, k, failure))
		return false;
	append_text(r, l, text, n, tokens);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Texts
 * --------------------------------------------------------------------------------------------- */

/* Where to cut so that the first piece has at most n bytes: behind a line, a word, or a character.
 */
static size_t
piece_end(q3p_bytes text, size_t n)
{
	size_t end = n;

	if (n >= text.len)
		return text.len;
	for (size_t i = n; i > n - n / 4; i--)
	{
		if (text.data[i - 1] == '\n')
			return i;
		if (end == n && text.data[i - 1] == ' ')
			end = i;
	}
	if (end < n)
		return end;
	while (end > 0 && ((unsigned char) text.data[end] & 0xc0) == 0x80)
		end--;
	if (end > 0)
		return end;
	end = 1;
	while (end < text.len && ((unsigned char) text.data[end] & 0xc0) == 0x80)
		end++;
	return end;
}

/* Takes a text of more tokens than a chunk may have, piece by piece. */
static bool
add_pieces(Qwen3dmReducer *r, int k, q3p_bytes text, int64 tokens, Qwen3dmFailure *failure)
{
	double bytes_per_token = (double) text.len / tokens;

	while (text.len > 0)
	{
		size_t n = piece_end(text, (size_t) (r->budget * bytes_per_token * 0.95) + 1);
		q3p_bytes piece = {text.data, n};

		if (!count_tokens(r, piece, &tokens, failure))
			return false;
		/* Fewer bytes, until they cannot be too many. */
		if (tokens > r->budget && n > r->budget)
		{
			bytes_per_token = Max(1.0, bytes_per_token * 0.95 * r->budget / tokens);
			if (bytes_per_token > 1.0)
				continue;
			n = piece_end(text, r->budget);
			piece.len = n;
			tokens = n;
		}
		if (!place(r, k, piece, 1, tokens, failure))
			return false;
		text.data += n;
		text.len -= n;
	}
	return true;
}

/* n texts in one. */
static bool
add_text(Qwen3dmReducer *r, int k, q3p_bytes text, int n, Qwen3dmFailure *failure)
{
	Level *l = get_level(r, k);
	int64 tokens;

	if (!has_room(r, l, text.len))
	{
		if (!count_open(r, l, failure))
			return false;
		if (!has_room(r, l, text.len))
		{
			if (!count_tokens(r, text, &tokens, failure))
				return false;
			if (SEPARATOR_BYTES + tokens > r->budget)
				return add_pieces(r, k, text, tokens, failure);
			return place(r, k, text, n, tokens, failure);
		}
	}
	append_text(r, l, text, n, -1);
	return true;
}

bool
qwen3dm_reducer_add(Qwen3dmReducer *r, q3p_bytes text, Qwen3dmFailure *failure)
{
	memset(failure, 0, sizeof(*failure));
	while (text.len > MAX_TEXT)
	{
		q3p_bytes piece = {text.data, piece_end(text, MAX_TEXT)};

		if (!add_text(r, 0, piece, 1, failure))
			return false;
		text.data += piece.len;
		text.len -= piece.len;
	}
	return add_text(r, 0, text, 1, failure);
}

/* ---------------------------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------------------------- */

/* The oldest closed chunk's answer becomes a text of the next level. */
static bool
take_part(Qwen3dmReducer *r, int k, Qwen3dmFailure *failure)
{
	Level *l = get_level(r, k);
	Part *part = linitial(l->parts);
	Qwen3dmRequest *request = NULL;
	q3p_bytes text = part->text;
	bool good;

	if (part->id != 0)
	{
		request = qwen3dm_reattach(part->id);
		if (request == NULL)
			ereport(ERROR,
			        (errcode(ERRCODE_QUERY_CANCELED),
			         errmsg("the answer was canceled with the transaction that asked for it")));
		qwen3dm_detach(request);
		qwen3dm_wait(request);
		if (request->failure.sqlstate != 0)
		{
			qwen3dm_copy_failure(failure, &request->failure);
			return false;
		}
		text = request->result.value;
	}
	/* Two of them always fit, or there would be no end. */
	if (text.len > r->budget / 2)
	{
		int64 tokens;

		if (!count_tokens(r, text, &tokens, failure))
			return false;
		if (tokens > r->budget / 2 - SEPARATOR_BYTES)
			text.len = piece_end(text, r->budget / 2 - SEPARATOR_BYTES);
	}
	l->parts = list_delete_first(l->parts);
	good = add_text(r, k + 1, text, 1, failure);
	if (request != NULL)
		qwen3dm_release(request);
	else
		pfree(unconstify(char *, part->text.data));
	pfree(part);
	return good;
}

static bool
take_parts(Qwen3dmReducer *r, int k, Qwen3dmFailure *failure)
{
	while (get_level(r, k)->parts != NIL)
	{
		if (!take_part(r, k, failure))
			return false;
	}
	return true;
}

/* Nothing is above this level. */
static bool
is_top(const Qwen3dmReducer *r, int k)
{
	for (int i = k + 1; i < list_length(r->levels); i++)
	{
		const Level *l = list_nth(r->levels, i);

		if (l->n_open > 0 || l->parts != NIL)
			return false;
	}
	return true;
}

bool
qwen3dm_reducer_finish(Qwen3dmReducer *r, q3p_request *message, Qwen3dmFailure *failure)
{
	int k = 0;
	Level *l = get_level(r, 0);

	memset(failure, 0, sizeof(*failure));
	while (l->parts != NIL || !is_top(r, k))
	{
		if (l->n_open > 0 && !close_chunk(r, k, failure))
			return false;
		if (!take_parts(r, k, failure))
			return false;
		l = get_level(r, ++k);
	}
	*message = request_about(r, l, k);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Several reducers
 * --------------------------------------------------------------------------------------------- */

/* Nothing is under way afterwards. */
static bool
take_all_parts(Qwen3dmReducer *r, Qwen3dmFailure *failure)
{
	for (int k = 0; k < list_length(r->levels); k++)
	{
		if (!take_parts(r, k, failure))
			return false;
	}
	return true;
}

bool
qwen3dm_reducer_combine(Qwen3dmReducer *r, Qwen3dmReducer *other, Qwen3dmFailure *failure)
{
	memset(failure, 0, sizeof(*failure));
	if (!take_all_parts(other, failure))
		return false;
	for (int k = 0; k < list_length(other->levels); k++)
	{
		Level *l = get_level(other, k);
		q3p_bytes text = {l->open.data, l->open.len};

		if (l->n_open > 0 && !add_text(r, k, text, l->n_open, failure))
			return false;
	}
	return true;
}

static void
send_bytes(StringInfo s, q3p_bytes bytes)
{
	pq_sendint64(s, bytes.len);
	pq_sendbytes(s, bytes.data, (int) bytes.len);
}

static q3p_bytes
get_bytes(StringInfo s)
{
	size_t len = pq_getmsgint64(s);

	return (q3p_bytes){pq_getmsgbytes(s, (int) len), len};
}

bool
qwen3dm_reducer_serialize(Qwen3dmReducer *r, bytea **bytes, Qwen3dmFailure *failure)
{
	StringInfoData s;

	memset(failure, 0, sizeof(*failure));
	if (!take_all_parts(r, failure))
		return false;
	pq_begintypsend(&s);
	send_bytes(&s, r->first);
	send_bytes(&s, r->further);
	pq_sendint32(&s, list_length(r->levels));
	for (int k = 0; k < list_length(r->levels); k++)
	{
		Level *l = get_level(r, k);
		bool empty = l->n_open == 0;

		pq_sendint32(&s, l->n_open);
		send_bytes(&s, (q3p_bytes){empty ? "" : l->open.data, empty ? 0 : l->open.len});
	}
	*bytes = pq_endtypsend(&s);
	return true;
}

Qwen3dmReducer *
qwen3dm_reducer_deserialize(MemoryContext context, const Qwen3dmOptions *options,
                            const bytea *bytes, Qwen3dmFailure *failure)
{
	StringInfoData s;
	q3p_bytes first, further;
	Qwen3dmReducer *r;
	int n;

	initStringInfo(&s);
	appendBinaryStringInfo(&s, VARDATA_ANY(bytes), (int) VARSIZE_ANY_EXHDR(bytes));
	first = get_bytes(&s);
	further = get_bytes(&s);
	r = qwen3dm_reducer_create(context, options, first, further, failure);
	if (r == NULL)
		return NULL;
	n = pq_getmsgint(&s, 4);
	for (int k = 0; k < n; k++)
	{
		int n_open = pq_getmsgint(&s, 4);
		q3p_bytes text = get_bytes(&s);

		if (n_open > 0)
			append_text(r, get_level(r, k), text, n_open, -1);
	}
	return r;
}

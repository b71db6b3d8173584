/*
 * rerank.c: qwen_rerank: how well each of some documents answers a query.
 *
 * The question is put in the words that Qwen3's rerankers were trained with; the score is the
 * probability of "yes" against "no". The main model is asked; what the documents share goes before
 * them, so that it is computed once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "extension/call.h"
#include "extension/classify.h"
#include "extension/window.h"

QWEN3DM_FUNCTION(qwen3dm_rerank);

#define SYSTEM                                                                                     \
	"Judge whether the Document meets the requirements based on the Query and the Instruct "       \
	"provided. Note that the answer can only be \"yes\" or \"no\"."
#define DEFAULT_INSTRUCTION                                                                        \
	"Given a web search query, retrieve relevant passages that answer the query"

/* Positions of the arguments. */
enum
{
	RERANK_QUERY,
	RERANK_DOCUMENTS,
	RERANK_INSTRUCTION,
	RERANK_ROUTING
};

typedef struct Document
{
	int32 idx; /* from 1 */
	bool unknown;
	double score;
} Document;

static q3p_bytes
before_document(FunctionCallInfo fcinfo)
{
	q3p_bytes query = qwen3dm_utf8_argument(fcinfo, RERANK_QUERY);
	q3p_bytes instruction = {DEFAULT_INSTRUCTION, strlen(DEFAULT_INSTRUCTION)};
	StringInfoData s;

	if (!PG_ARGISNULL(RERANK_INSTRUCTION))
		instruction = qwen3dm_utf8_argument(fcinfo, RERANK_INSTRUCTION);
	initStringInfo(&s);
	appendStringInfoString(&s, "<Instruct>: ");
	appendBinaryStringInfo(&s, instruction.data, (int) instruction.len);
	appendStringInfoString(&s, "\n<Query>: ");
	appendBinaryStringInfo(&s, query.data, (int) query.len);
	appendStringInfoString(&s, "\n<Document>: ");
	return (q3p_bytes){s.data, s.len};
}

/* False: there is nothing to rank. */
static bool
parse_rerank(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	static const q3p_bytes answers[] = {{"yes", 3}, {"no", 2}};

	qwen3dm_routing_options(fcinfo, RERANK_ROUTING, Q3P_CLASSIFY, options);
	if (PG_ARGISNULL(RERANK_QUERY) || PG_ARGISNULL(RERANK_DOCUMENTS))
		return false;
	options->request.system = (q3p_bytes){SYSTEM, strlen(SYSTEM)};
	options->request.thinking = false;
	options->same_mode = true;
	options->before = before_document(fcinfo);
	options->lists.labels = answers;
	options->request.n_labels = lengthof(answers);
	return true;
}

/* Of the next document; false: it is NULL, or has none. */
static bool
next_score(Qwen3dmWindow *w, double *score)
{
	Qwen3dmFailure failure = {0};
	Qwen3dmRequest *r = qwen3dm_window_next(w, &failure);
	bool known = false;

	if (r != NULL)
	{
		if (r->failure.sqlstate != 0)
			qwen3dm_copy_failure(&failure, &r->failure);
		else
		{
			double *probs = qwen3dm_probabilities(w->options, &r->result, &failure);

			known = probs != NULL;
			if (known)
				*score = probs[0];
		}
		qwen3dm_release(r);
	}
	if (failure.sqlstate != 0 && !w->options->null_on_error)
		qwen3dm_raise(&failure, w->head);
	return known;
}

static int
compare_documents(const void *a, const void *b)
{
	const Document *x = a;
	const Document *y = b;

	if (x->unknown != y->unknown)
		return x->unknown ? 1 : -1;
	if (!x->unknown && x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return (x->idx > y->idx) - (x->idx < y->idx);
}

/* Asks and waits for all; *n documents, the best first. */
static Document *
rank(FunctionCallInfo fcinfo, uint64 *n)
{
	Qwen3dmOptions options;
	Qwen3dmWindow window;
	Document *documents;
	Datum *texts;
	bool *nulls;
	int n_documents;

	*n = 0;
	if (!parse_rerank(fcinfo, &options))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(RERANK_DOCUMENTS), TEXTOID, -1, false, TYPALIGN_INT,
	                  &texts, &nulls, &n_documents);
	documents = palloc(sizeof(Document) * Max(n_documents, 1));
	qwen3dm_window_start(&window, &options, texts, nulls, n_documents);
	for (int i = 0; i < n_documents; i++)
	{
		documents[i].idx = i + 1;
		documents[i].unknown = !next_score(&window, &documents[i].score);
	}
	qsort(documents, n_documents, sizeof(Document), compare_documents);
	*n = n_documents;
	return documents;
}

Datum
qwen3dm_rerank(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	const Document *document;
	Datum values[2];
	bool nulls[2] = {false, false};

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc tupdesc;

		funcctx = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
		    tupdesc->natts != lengthof(values))
			elog(ERROR, "qwen_rerank does not return what its library makes");
		funcctx->tuple_desc = BlessTupleDesc(tupdesc);
		funcctx->user_fctx = rank(fcinfo, &funcctx->max_calls);
		MemoryContextSwitchTo(old);
	}
	funcctx = SRF_PERCALL_SETUP();
	if (funcctx->call_cntr >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	document = (const Document *) funcctx->user_fctx + funcctx->call_cntr;
	values[0] = Int32GetDatum(document->idx);
	nulls[1] = document->unknown;
	values[1] = Float8GetDatum(document->unknown ? 0 : document->score);
	SRF_RETURN_NEXT(funcctx,
	                HeapTupleGetDatum(heap_form_tuple(funcctx->tuple_desc, values, nulls)));
}

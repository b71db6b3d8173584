/*
 * batch_scan.c: executes the batching node that batch_plan.c puts into plans.
 *
 * Runs in the backend, or in each of several parallel workers for its part of the rows. The node
 * reads rows of its child ahead of need, starts their calls, keeps the rows, and finishes the calls
 * of the first one when that is asked for. It reads as far ahead as qwen3dm.batch_window rows, or
 * work_mem of them, when all rows are sure to be asked for. Otherwise that grows with what has been
 * asked for: never more rows than have been returned, so that a query that stops early has at most
 * twice the calls. Errors of a call are raised when its row is asked for, and not at all if it
 * never is.
 *
 * Rows and their calls live in a memory context of the node. Its end, however the query ends, drops
 * the requests that are still under way; the end of a subtransaction does not (a cursor survives a
 * savepoint).
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#endif
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/shm_toc.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "extension/answers.h"
#include "extension/batch.h"
#include "extension/call.h"
#include "extension/compat.h"
#include "extension/module.h"

/* One call in the query. */
typedef struct CallSite
{
	const Qwen3dmFunction *function;
	FmgrInfo info;
	FunctionCallInfo fcinfo;
	List *expressions;
	List *arguments; /* of ExprState *, over the child's columns */
	int16 typlen;    /* of the value */
	bool typbyval;
} CallSite;

/* A row that was read and not yet returned, or that was returned last. */
typedef struct Row
{
	dlist_node node;
	MinimalTuple columns;
	ItemPointerData tid; /* where it is in its table, if it comes from one */
	Oid table;
	ErrorData *error; /* starting the calls failed */
	struct
	{
		Qwen3dmAnswer *answer;
		bool asked; /* by this row, not by one before */
	} calls[FLEXIBLE_ARRAY_MEMBER];
} Row;

typedef struct Counters
{
	int64 batches; /* times that rows were read ahead */
	int64 requests;
	int64 reused; /* calls that needed none, because an equal one was made before */
	int64 wasted; /* requests for rows that were not asked for */
	Qwen3dmTally tally;
} Counters;

/* Of all workers, in dynamic shared memory. */
typedef struct SharedCounters
{
	int n;
	Counters workers[FLEXIBLE_ARRAY_MEMBER];
} SharedCounters;

typedef struct BatchState
{
	CustomScanState css;
	int n_columns, n_calls;
	bool plain; /* QWEN3DM_BATCH_PLAIN */
	Qwen3dmExtent extent;
	CallSite *sites;
	ExprContext *arguments; /* for evaluating them */
	ExprState *count, *offset;
	TupleTableSlot *row_slot;

	MemoryContext context;
	MemoryContextCallback at_end;
	Qwen3dmAnswers answers;
	StringInfoData key; /* for making one */
	dlist_head ahead;   /* rows not yet returned */
	int n_ahead;
	Size bytes_ahead;
	Row *current;      /* returned last */
	bool child_at_end; /* it has no more rows */
	bool at_the_end;   /* we have said so */
	bool stuck;        /* the last row of ahead has an error: nothing behind it is read */
	int window;
	int64 returned; /* rows of the child, since the last start */
	int64 bound;    /* number of rows that will be asked for; -1: unknown */
	bool bound_known;

	Counters counters;
	Counters workers;
	SharedCounters *shared;
} BatchState;

/* ---------------------------------------------------------------------------------------------
 * Runs
 * --------------------------------------------------------------------------------------------- */

static ExecutorRun_hook_type next_run = NULL;
/* The innermost statement that is being executed is run to its end, not fetched from. */
static bool run_to_end = false;

#if PG_VERSION_NUM >= 180000
#define RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define RUN_ARGUMENTS query, direction, count
#else
#define RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define RUN_ARGUMENTS query, direction, count, execute_once
#endif

static void
run_statement(RUN_PARAMETERS)
{
	bool before = run_to_end;

	run_to_end = count == 0;
	PG_TRY();
	{
		if (next_run != NULL)
			next_run(RUN_ARGUMENTS);
		else
			standard_ExecutorRun(RUN_ARGUMENTS);
	}
	PG_FINALLY();
	{
		run_to_end = before;
	}
	PG_END_TRY();
}

void
qwen3dm_install_run_hook(void)
{
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = run_statement;
}

/* ---------------------------------------------------------------------------------------------
 * Rows
 * --------------------------------------------------------------------------------------------- */

/* Only tells the engine; allocates and frees nothing. */
static void
drop_calls(BatchState *s, Row *row)
{
	for (int i = 0; i < s->n_calls; i++)
	{
		if (row->calls[i].answer != NULL)
			qwen3dm_call_drop(&row->calls[i].answer->call);
	}
}

static void
release_calls(BatchState *s, Row *row)
{
	for (int i = 0; i < s->n_calls; i++)
	{
		if (row->calls[i].answer != NULL)
			qwen3dm_answer_release(&s->answers, row->calls[i].answer);
		row->calls[i].answer = NULL;
	}
}

static void
free_row(BatchState *s, Row *row)
{
	release_calls(s, row);
	pfree(row->columns);
	if (row->error != NULL)
		FreeErrorData(row->error);
	pfree(row);
}

static int64
requests_of(BatchState *s, const Row *row)
{
	int64 n = 0;

	for (int i = 0; i < s->n_calls; i++)
		n += row->calls[i].asked;
	return n;
}

static int64
requests_ahead(BatchState *s)
{
	int64 n = 0;
	dlist_iter i;

	dlist_foreach(i, &s->ahead) n += requests_of(s, dlist_container(Row, node, i.cur));
	return n;
}

/* Back to the state before the first row, as far as it is ours. */
static void
forget_rows(BatchState *s)
{
	s->counters.wasted += requests_ahead(s);
	while (!dlist_is_empty(&s->ahead))
		free_row(s, dlist_container(Row, node, dlist_pop_head_node(&s->ahead)));
	s->n_ahead = 0;
	s->bytes_ahead = 0;
	if (s->current != NULL)
		free_row(s, s->current);
	s->current = NULL;
	s->child_at_end = false;
	s->at_the_end = false;
	s->stuck = false;
	s->returned = 0;
}

/* The query is over, perhaps by an error. The rows' memory goes by itself. */
static void
drop_requests(void *arg)
{
	BatchState *s = arg;
	dlist_iter i;

	dlist_foreach(i, &s->ahead) drop_calls(s, dlist_container(Row, node, i.cur));
	if (s->current != NULL)
		drop_calls(s, s->current);
	dlist_init(&s->ahead);
	s->current = NULL;
}

/* ---------------------------------------------------------------------------------------------
 * Starting calls
 * --------------------------------------------------------------------------------------------- */

/* What is to be known of an argument to recognize it, at the end of the key. */
static void
add_to_key(BatchState *s, NullableDatum *argument, Oid type)
{
	int16 typlen;
	bool typbyval;

	appendStringInfoChar(&s->key, argument->isnull);
	if (argument->isnull)
		return;
	get_typlenbyval(type, &typlen, &typbyval);
	if (typlen == -1)
	{
		struct varlena *value = PG_DETOAST_DATUM_PACKED(argument->value);
		Size len = VARSIZE_ANY_EXHDR(value);

		argument->value = PointerGetDatum(value);
		appendBinaryStringInfo(&s->key, (char *) &len, sizeof(len));
		appendBinaryStringInfo(&s->key, VARDATA_ANY(value), len);
	}
	else if (typbyval)
		appendBinaryStringInfo(&s->key, (char *) &argument->value, sizeof(Datum));
	else
		appendBinaryStringInfo(&s->key, DatumGetPointer(argument->value), typlen);
}

/* Evaluates the arguments; those that are not the same for every row make the key, and so do
 * settings that a cursor's owner may change between rows. */
static void
evaluate_arguments(BatchState *s, CallSite *site)
{
	NullableDatum *argument = site->fcinfo->args;
	ListCell *state, *expression;

	resetStringInfo(&s->key);
	appendBinaryStringInfo(&s->key, (char *) &qwen3dm_mode, sizeof(qwen3dm_mode));
	appendBinaryStringInfo(&s->key, (char *) &qwen3dm_max_tokens, sizeof(qwen3dm_max_tokens));
	forboth(state, site->arguments, expression, site->expressions)
	{
		argument->value = ExecEvalExpr(lfirst(state), s->arguments, &argument->isnull);
		if (!IsA(lfirst(expression), Const))
			add_to_key(s, argument, exprType(lfirst(expression)));
		argument++;
	}
}

static void
start_calls(BatchState *s, Row *row, TupleTableSlot *slot)
{
	MemoryContext old;

	ResetExprContext(s->arguments);
	s->arguments->ecxt_outertuple = slot;
	old = MemoryContextSwitchTo(s->arguments->ecxt_per_tuple_memory);
	for (int i = 0; i < s->n_calls; i++)
	{
		CallSite *site = &s->sites[i];
		Qwen3dmKey key;
		bool fresh;

		evaluate_arguments(s, site);
		key = (Qwen3dmKey){i, s->key.data, s->key.len};
		row->calls[i].answer =
		    qwen3dm_answer_start(&s->answers, site->function, site->fcinfo, &key, &fresh);
		row->calls[i].asked = fresh && row->calls[i].answer->call.ids[0] != 0;
		s->counters.requests += row->calls[i].asked;
		s->counters.reused += !fresh;
	}
	MemoryContextSwitchTo(old);
}

/*
 * The same for a row that is not asked for yet: an error is kept for when it is. What the failing
 * expression leaves behind goes with a subtransaction.
 */
static void
try_to_start_calls(BatchState *s, Row *row, TupleTableSlot *slot)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		start_calls(s, row, slot);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(s->context);
		error = CopyErrorData();
		FlushErrorState();
		release_calls(s, row);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		/* Those are not the row's. */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		row->error = error;
		s->stuck = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/* Where the row that the scan below has just returned is; for WHERE CURRENT OF. */
static void
note_place(BatchState *s, Row *row)
{
	PlanState *child = outerPlanState(s);
	IndexScanDesc index_only;

	ItemPointerSetInvalid(&row->tid);
	if (s->css.ss.ss_currentRelation == NULL)
		return;
	row->table = RelationGetRelid(s->css.ss.ss_currentRelation);
	if (IsA(child, IndexOnlyScanState))
	{
		index_only = ((IndexOnlyScanState *) child)->ioss_ScanDesc;
		if (index_only != NULL) /* none when a changed row is checked again */
			row->tid = index_only->xs_heaptid;
	}
	else
		row->tid = ((ScanState *) child)->ss_ScanTupleSlot->tts_tid;
}

/* Takes the child's row into the window; its calls are started. */
static void
add_row(BatchState *s, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(s->context);
	Row *row = palloc0(offsetof(Row, calls) + sizeof(row->calls[0]) * s->n_calls);

	row->columns = ExecCopySlotMinimalTuple(slot);
	MemoryContextSwitchTo(old);
	note_place(s, row);
	dlist_push_tail(&s->ahead, &row->node);
	s->n_ahead++;
	s->bytes_ahead += row->columns->t_len;
	if (s->plain || s->n_ahead == 1 || IsInParallelMode())
		start_calls(s, row, slot);
	else
		try_to_start_calls(s, row, slot);
}

/* ---------------------------------------------------------------------------------------------
 * Reading ahead
 * --------------------------------------------------------------------------------------------- */

static int64
evaluate_bound_part(BatchState *s, ExprState *expression, int64 if_null)
{
	bool isnull;
	Datum value;

	if (expression == NULL)
		return 0;
	value = ExecEvalExprSwitchContext(expression, s->arguments, &isnull);
	return isnull ? if_null : DatumGetInt64(value);
}

/* As the LIMIT above does, which also complains of nonsense. */
static void
compute_bound(BatchState *s)
{
	int64 count, offset;

	s->bound_known = true;
	s->bound = -1;
	if (s->count == NULL)
		return;
	ResetExprContext(s->arguments);
	count = evaluate_bound_part(s, s->count, -1);
	offset = evaluate_bound_part(s, s->offset, 0);
	if (count >= 0 && offset >= 0 && count <= PG_INT64_MAX - offset)
		s->bound = count + offset;
	/* A sort below need not do more than that either. */
	ExecSetTupleBound(s->bound, outerPlanState(s));
}

static bool
all_are_wanted(const BatchState *s)
{
	return s->extent == QWEN3DM_ALL || (s->extent == QWEN3DM_ALL_IF_RUN && run_to_end);
}

/* How many rows, the next one included, may be in the window now. */
static int64
room(BatchState *s)
{
	int64 n = all_are_wanted(s) ? s->window : Min(s->returned + 1, s->window);

	if (s->css.ss.ps.state->es_epq_active != NULL)
		return 1;
	/* Errors cannot be kept then; workers read ahead of need in any case. */
	if (!s->plain && IsInParallelMode() && !IsParallelWorker())
		return 1;
	if (s->bound >= 0)
		n = Min(n, Max(s->bound - s->returned, 1));
	return n;
}

static void
read_ahead(BatchState *s)
{
	int64 wanted = room(s);
	int before = s->n_ahead;

	while (s->n_ahead < wanted && !s->child_at_end && !s->stuck)
	{
		TupleTableSlot *slot;

		if (s->n_ahead > 0 && (s->bytes_ahead > work_mem * (Size) 1024 || qwen3dm_is_congested()))
			break;
		slot = ExecProcNode(outerPlanState(s));
		if (TupIsNull(slot))
			s->child_at_end = true;
		else
			add_row(s, slot);
	}
	s->counters.batches += s->n_ahead > before;
}

/* The next row of the child, which becomes the current one; NULL: there is none. */
static Row *
next_row(BatchState *s)
{
	if (s->current != NULL)
		free_row(s, s->current);
	s->current = NULL;
	if (!s->bound_known)
		compute_bound(s);
	/* Not for every row, so that requests are sent, and arrive, several at a time. */
	if (s->n_ahead <= room(s) / 2)
		read_ahead(s);
	if (s->n_ahead == 0)
	{
		s->at_the_end = true;
		return NULL;
	}
	s->current = dlist_container(Row, node, dlist_pop_head_node(&s->ahead));
	s->n_ahead--;
	s->bytes_ahead -= s->current->columns->t_len;
	s->returned++;
	return s->current;
}

/*
 * The row before the current one. The child, which is as far ahead as we have read, first goes back
 * to where we are.
 */
static Row *
previous_row(BatchState *s)
{
	int steps = s->n_ahead + (s->child_at_end && !s->at_the_end);
	TupleTableSlot *slot;

	forget_rows(s);
	while (steps-- > 0)
		(void) ExecProcNode(outerPlanState(s));
	slot = ExecProcNode(outerPlanState(s));
	if (TupIsNull(slot))
		return NULL;
	add_row(s, slot);
	s->current = dlist_container(Row, node, dlist_pop_head_node(&s->ahead));
	s->n_ahead = 0;
	s->bytes_ahead = 0;
	return s->current;
}

/* Finishes the calls of a row and shows all its columns in the scan slot. */
static void
show_row(BatchState *s, Row *row)
{
	ExprContext *econtext = s->css.ss.ps.ps_ExprContext;
	TupleTableSlot *slot = s->css.ss.ss_ScanTupleSlot;
	MemoryContext old;

	if (row->error != NULL)
		ReThrowError(row->error);
	ExecClearTuple(slot);
	ExecStoreMinimalTuple(row->columns, s->row_slot, false);
	slot_getallattrs(s->row_slot);
	memcpy(slot->tts_values, s->row_slot->tts_values, sizeof(Datum) * s->n_columns);
	memcpy(slot->tts_isnull, s->row_slot->tts_isnull, sizeof(bool) * s->n_columns);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	for (int i = 0; i < s->n_calls; i++)
		slot->tts_values[s->n_columns + i] = qwen3dm_answer_take(
		    &s->answers, row->calls[i].answer, s->sites[i].typlen, s->sites[i].typbyval,
		    &slot->tts_isnull[s->n_columns + i], &s->counters.tally);
	MemoryContextSwitchTo(old);
	ExecStoreVirtualTuple(slot);
	slot->tts_tid = row->tid;
	slot->tts_tableOid = row->table;
	econtext->ecxt_scantuple = slot;
}

static TupleTableSlot *
batch_exec(CustomScanState *node)
{
	BatchState *s = (BatchState *) node;
	PlanState *ps = &node->ss.ps;
	bool forward = ScanDirectionIsForward(ps->state->es_direction);

	for (;;)
	{
		Row *row;

		CHECK_FOR_INTERRUPTS();
		ResetExprContext(ps->ps_ExprContext);
		row = forward ? next_row(s) : previous_row(s);
		if (row == NULL)
			return ExecClearTuple(node->ss.ss_ScanTupleSlot);
		show_row(s, row);
		if (ExecQual(ps->qual, ps->ps_ExprContext))
			break;
		InstrCountFiltered1(ps, 1);
	}
	if (ps->ps_ProjInfo == NULL)
		return node->ss.ss_ScanTupleSlot;
	return ExecProject(ps->ps_ProjInfo);
}

/* ---------------------------------------------------------------------------------------------
 * Beginning and end
 * --------------------------------------------------------------------------------------------- */

static void
begin_call(BatchState *s, CallSite *site, FuncExpr *f)
{
	if (!qwen3dm_may_execute(f->funcid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(f->funcid));
	InvokeFunctionExecuteHook(f->funcid);

	fmgr_info(f->funcid, &site->info);
	fmgr_info_set_expr((Node *) f, &site->info);
	site->function = qwen3dm_function_at(site->info.fn_addr);
	if (site->function == NULL)
		elog(ERROR, "function %u is not what it was when the query was planned", f->funcid);
	site->fcinfo = palloc0(SizeForFunctionCallInfo(list_length(f->args)));
	InitFunctionCallInfoData(*site->fcinfo, &site->info, list_length(f->args), f->inputcollid, NULL,
	                         NULL);
	site->expressions = f->args;
	site->arguments = ExecInitExprList(f->args, &s->css.ss.ps);
	get_typlenbyval(f->funcresulttype, &site->typlen, &site->typbyval);
}

/* The table that the child's rows are of, one row for one. */
static Relation
table_below(PlanState *child)
{
	switch (nodeTag(child))
	{
		case T_SeqScanState:
		case T_SampleScanState:
		case T_IndexScanState:
		case T_IndexOnlyScanState:
		case T_BitmapHeapScanState:
		case T_TidScanState:
		case T_TidRangeScanState:
		case T_ForeignScanState:
			return ((ScanState *) child)->ss_currentRelation;
		case T_CustomScanState:
			if (((CustomScan *) child->plan)->methods == &qwen3dm_batch_methods)
				return ((ScanState *) child)->ss_currentRelation;
			return NULL;
		default:
			return NULL;
	}
}

static void
batch_begin(CustomScanState *node, EState *estate, int eflags)
{
	BatchState *s = (BatchState *) node;
	CustomScan *plan = (CustomScan *) node->ss.ps.plan;
	int i = 0;
	ListCell *lc;

	outerPlanState(node) = ExecInitNode(outerPlan(plan), estate, eflags);
	s->n_columns = list_nth_int(plan->custom_private, QWEN3DM_BATCH_COLUMNS);
	s->plain = list_nth_int(plan->custom_private, QWEN3DM_BATCH_PLAIN);
	s->extent = list_nth_int(plan->custom_private, QWEN3DM_BATCH_EXTENT);
	s->n_calls = list_length(plan->custom_scan_tlist) - s->n_columns;
	s->sites = palloc0(sizeof(CallSite) * s->n_calls);
	for_each_from(lc, plan->custom_scan_tlist, s->n_columns)
	    begin_call(s, &s->sites[i++], castNode(FuncExpr, ((TargetEntry *) lfirst(lc))->expr));
	if (plan->custom_exprs != NIL)
		s->count = ExecInitExpr(linitial(plan->custom_exprs), &node->ss.ps);
	if (list_length(plan->custom_exprs) > 1)
		s->offset = ExecInitExpr(lsecond(plan->custom_exprs), &node->ss.ps);

	s->arguments = CreateExprContext(estate);
	s->row_slot = ExecInitExtraTupleSlot(estate, ExecGetResultType(outerPlanState(node)),
	                                     &TTSOpsMinimalTuple);
	s->window = qwen3dm_enable_batching ? qwen3dm_batch_window : 1;
	node->ss.ss_currentRelation = table_below(outerPlanState(node));
	dlist_init(&s->ahead);
	s->context =
	    AllocSetContextCreate(CurrentMemoryContext, "Qwen Batch rows", ALLOCSET_DEFAULT_SIZES);
	qwen3dm_answers_init(&s->answers, s->context);
	initStringInfo(&s->key);
	s->at_end.func = drop_requests;
	s->at_end.arg = s;
	MemoryContextRegisterResetCallback(s->context, &s->at_end);
}

static void
batch_rescan(CustomScanState *node)
{
	BatchState *s = (BatchState *) node;

	/* An error may have left the expressions' own memory half made. */
	if (s->stuck)
	{
		for (int i = 0; i < s->n_calls; i++)
			s->sites[i].arguments = ExecInitExprList(s->sites[i].expressions, &node->ss.ps);
	}
	forget_rows(s);
	if (s->bound_known)
		compute_bound(s); /* before a sort below decides whether to sort again */
	if (outerPlanState(node)->chgParam == NULL)
		ExecReScan(outerPlanState(node));
}

static void
batch_end(CustomScanState *node)
{
	BatchState *s = (BatchState *) node;

	forget_rows(s);
	ExecEndNode(outerPlanState(node));
}

/* ---------------------------------------------------------------------------------------------
 * Counters
 * --------------------------------------------------------------------------------------------- */

static void
add_counters(Counters *to, const Counters *c)
{
	to->batches += c->batches;
	to->requests += c->requests;
	to->reused += c->reused;
	to->wasted += c->wasted;
	to->tally.prompt_tokens += c->tally.prompt_tokens;
	to->tally.cached_tokens += c->tally.cached_tokens;
	to->tally.output_tokens += c->tally.output_tokens;
	to->tally.deduplicated += c->tally.deduplicated;
	to->tally.efficient += c->tally.efficient;
	to->tally.precise += c->tally.precise;
	to->tally.escalated += c->tally.escalated;
}

static Counters
counters_now(BatchState *s)
{
	Counters c = s->counters;

	c.wasted += requests_ahead(s);
	return c;
}

static void
collect_workers(BatchState *s)
{
	for (int i = 0; i < s->shared->n; i++)
		add_counters(&s->workers, &s->shared->workers[i]);
	memset(s->shared->workers, 0, sizeof(Counters) * s->shared->n);
}

static Size
batch_estimate_dsm(CustomScanState *node, ParallelContext *pcxt)
{
	return offsetof(SharedCounters, workers) + sizeof(Counters) * pcxt->nworkers;
}

static void
batch_initialize_dsm(CustomScanState *node, ParallelContext *pcxt, void *coordinate)
{
	BatchState *s = (BatchState *) node;

	s->shared = coordinate;
	memset(s->shared, 0, batch_estimate_dsm(node, pcxt));
	s->shared->n = pcxt->nworkers;
}

static void
batch_reinitialize_dsm(CustomScanState *node, ParallelContext *pcxt, void *coordinate)
{
	BatchState *s = (BatchState *) node;

	s->shared = coordinate;
	collect_workers(s);
}

static void
batch_initialize_worker(CustomScanState *node, shm_toc *toc, void *coordinate)
{
	((BatchState *) node)->shared = coordinate;
}

/* Rows may still be asked for afterwards, when a cursor goes on. */
static void
batch_shutdown(CustomScanState *node)
{
	BatchState *s = (BatchState *) node;

	if (s->shared == NULL)
		return;
	if (IsParallelWorker())
		s->shared->workers[ParallelWorkerNumber] = counters_now(s);
	else
	{
		collect_workers(s);
		s->shared = NULL;
	}
}

static void
explain_counters(const Counters *c, ExplainState *es)
{
	if (es->format == EXPLAIN_FORMAT_TEXT)
	{
		ExplainPropertyText("Requests",
		                    psprintf(INT64_FORMAT " in " INT64_FORMAT " batches, " INT64_FORMAT
		                                          " deduplicated, " INT64_FORMAT " wasted",
		                             c->requests, c->batches, c->reused + c->tally.deduplicated,
		                             c->wasted),
		                    es);
		ExplainPropertyText(
		    "Tokens",
		    psprintf(INT64_FORMAT " prompt, " INT64_FORMAT " cached, " INT64_FORMAT " output",
		             c->tally.prompt_tokens, c->tally.cached_tokens, c->tally.output_tokens),
		    es);
		ExplainPropertyText("Modes",
		                    psprintf(INT64_FORMAT " efficient, " INT64_FORMAT
		                                          " precise, " INT64_FORMAT " escalated",
		                             c->tally.efficient, c->tally.precise, c->tally.escalated),
		                    es);
		return;
	}
	ExplainPropertyInteger("Batches", NULL, c->batches, es);
	ExplainPropertyInteger("Requests", NULL, c->requests, es);
	ExplainPropertyInteger("Deduplicated Requests", NULL, c->reused + c->tally.deduplicated, es);
	ExplainPropertyInteger("Wasted Requests", NULL, c->wasted, es);
	ExplainPropertyInteger("Prompt Tokens", NULL, c->tally.prompt_tokens, es);
	ExplainPropertyInteger("Cached Tokens", NULL, c->tally.cached_tokens, es);
	ExplainPropertyInteger("Output Tokens", NULL, c->tally.output_tokens, es);
	ExplainPropertyInteger("Efficient Answers", NULL, c->tally.efficient, es);
	ExplainPropertyInteger("Precise Answers", NULL, c->tally.precise, es);
	ExplainPropertyInteger("Escalated Answers", NULL, c->tally.escalated, es);
}

static void
batch_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	BatchState *s = (BatchState *) node;
	List *names = NIL;
	Counters c;

	for (int i = 0; i < s->n_calls; i++)
		names = lappend(names, get_func_name(s->sites[i].info.fn_oid));
	ExplainPropertyList("Calls", names, es);
	if (!es->analyze)
		return;
	c = counters_now(s);
	add_counters(&c, &s->workers);
	explain_counters(&c, es);
}

/* ---------------------------------------------------------------------------------------------
 * The node
 * --------------------------------------------------------------------------------------------- */

static const CustomExecMethods exec_methods = {
    .CustomName = "Qwen Batch",
    .BeginCustomScan = batch_begin,
    .ExecCustomScan = batch_exec,
    .EndCustomScan = batch_end,
    .ReScanCustomScan = batch_rescan,
    .EstimateDSMCustomScan = batch_estimate_dsm,
    .InitializeDSMCustomScan = batch_initialize_dsm,
    .ReInitializeDSMCustomScan = batch_reinitialize_dsm,
    .InitializeWorkerCustomScan = batch_initialize_worker,
    .ShutdownCustomScan = batch_shutdown,
    .ExplainCustomScan = batch_explain,
};

static Node *
create_state(CustomScan *plan)
{
	BatchState *s = palloc0(sizeof(BatchState));

	NodeSetTag(s, T_CustomScanState);
	s->css.methods = &exec_methods;
	return (Node *) s;
}

const CustomScanMethods qwen3dm_batch_methods = {"Qwen Batch", create_state};

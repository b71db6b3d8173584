/*
 * batch_plan.c: puts the batching node into finished plans.
 *
 * Runs in the backend that plans, after the planner: the plan stays as it is but for new nodes
 * above those that would call our functions for one row after the other, in their target list or
 * their filter.
 *
 *     Seq Scan                          Qwen Batch: id, nextval(..), <call 1>
 *       id, nextval(..), f(body)   =>     Seq Scan: id, body
 *       Filter: cheap AND g(body)           becomes two, one for the filter and one for the rest,
 *                                           when the filter has a call, too
 *
 * The node below gives only columns. The node above starts the calls of rows that nobody has asked
 * for yet, but evaluates everything else when a row is asked for; so what else is in the target
 * list happens as often, and in the same order, as without it. Filters move up from the first one
 * with a call on, all of them and in their order, so that whoever was to be evaluated first (cheap
 * ones, those of row security) still is. A call is left where it is when its evaluation depends on
 * something else in the row (CASE, AND, OR, ...), when its arguments are volatile, or when reading
 * ahead would be felt: volatile functions or row locks in the plan below.
 *
 * Besides, conditions of inner joins that call become filters of the join, and columns of a
 * subquery that call but that nobody reads are not computed.
 *
 * Memory: the current context, as for the plan itself.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "extension/batch.h"
#include "extension/call.h"
#include "extension/module.h"

typedef struct Rewriter
{
	PlannedStmt *stmt;
	int last_id;          /* highest plan_node_id */
	int gathers;          /* that we are below of */
	Qwen3dmExtent extent; /* of the plan that is looked at */
} Rewriter;

static planner_hook_type next_planner = NULL;

/* ---------------------------------------------------------------------------------------------
 * Functions
 * --------------------------------------------------------------------------------------------- */

/* Address of one of our C functions, NULL for all others. */
static PGFunction
our_address(Oid funcid)
{
	HeapTuple tuple;
	Form_pg_proc proc;
	bool candidate;
	FmgrInfo info;

	if (funcid < FirstNormalObjectId)
		return NULL;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return NULL;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	candidate = proc->prolang == ClanguageId && !proc->prosecdef && !proc->proretset &&
	            heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL);
	if (candidate)
	{
		bool isnull;
		char *symbol =
		    TextDatumGetCString(SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull));

		candidate = strncmp(symbol, "qwen3dm_", 8) == 0;
		pfree(symbol);
	}
	ReleaseSysCache(tuple);
	if (!candidate)
		return NULL;
	fmgr_info(funcid, &info);
	return info.fn_addr;
}

/* What a node calls, NULL when it is no call of ours. */
static const Qwen3dmFunction *
called_function(const Node *node)
{
	if (!IsA(node, FuncExpr))
		return NULL;
	return qwen3dm_function_at(our_address(((const FuncExpr *) node)->funcid));
}

static bool
is_call(const Node *node)
{
	return called_function(node) != NULL;
}

static bool
is_call_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return is_call(node) || expression_tree_walker(node, is_call_walker, context);
}

/* Ours are volatile, because the planner must not run them, but all that most of them do is answer.
 */
static bool
is_felt_function(Oid funcid, void *context)
{
	PGFunction ours;

	if (func_volatile(funcid) != PROVOLATILE_VOLATILE)
		return false;
	ours = our_address(funcid);
	return ours == NULL || ours == qwen3dm_pin_prefix || ours == qwen3dm_unpin_prefixes;
}

static bool reading_is_felt(Plan *plan, Rewriter *w);

/* Something happens, or may come out differently, when node is evaluated more often. */
static bool
evaluating_is_felt(Node *node, Rewriter *w)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_felt_function, NULL) || IsA(node, NextValueExpr))
		return true;
	if (IsA(node, SubPlan) &&
	    reading_is_felt(list_nth(w->stmt->subplans, ((SubPlan *) node)->plan_id - 1), w))
		return true;
	return expression_tree_walker(node, evaluating_is_felt, w);
}

/* Anything volatile at all, ours too: what it gives is not to be asked about ahead. */
static bool
is_fixed(Node *node)
{
	return !contain_volatile_functions(node) && !contain_subplans(node);
}

/* Cannot raise an error, whatever the row. */
static bool
may_fail(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Param:
		case T_List:
		case T_RelabelType:
		case T_CoalesceExpr:
		case T_NullTest:
			break;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcid != F_TEXTCAT &&
			    !get_func_leakproof(((FuncExpr *) node)->funcid))
				return true;
			break;
		case T_OpExpr:
			if (((OpExpr *) node)->opfuncid != F_TEXTCAT &&
			    !get_func_leakproof(((OpExpr *) node)->opfuncid))
				return true;
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, may_fail, context);
}

/* The input of any row, and options that are the same for all: they fail at the first or never. */
static bool
is_plain(const FuncExpr *call)
{
	ListCell *lc;

	for_each_from(lc, call->args, 1)
	{
		if (!IsA(lfirst(lc), Const))
			return false;
	}
	return !may_fail(linitial(call->args), NULL);
}

/* ---------------------------------------------------------------------------------------------
 * Plans
 * --------------------------------------------------------------------------------------------- */

/* Replaces or visits the children of a plan; the callback may return its argument. */
static void
each_child(Plan *plan, Plan *(*f)(Plan *child, Plan *parent, Rewriter *w), Rewriter *w)
{
	List *more = NIL;
	ListCell *lc;

	if (plan->lefttree != NULL)
		plan->lefttree = f(plan->lefttree, plan, w);
	if (plan->righttree != NULL)
		plan->righttree = f(plan->righttree, plan, w);
	switch (nodeTag(plan))
	{
		case T_Append:
			more = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			more = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_BitmapAnd:
			more = ((BitmapAnd *) plan)->bitmapplans;
			break;
		case T_BitmapOr:
			more = ((BitmapOr *) plan)->bitmapplans;
			break;
		case T_CustomScan:
			more = ((CustomScan *) plan)->custom_plans;
			break;
		case T_SubqueryScan:
			((SubqueryScan *) plan)->subplan = f(((SubqueryScan *) plan)->subplan, plan, w);
			break;
		default:
			break;
	}
	foreach (lc, more)
		lfirst(lc) = f(lfirst(lc), plan, w);
}

/* Has read all its input when it returns its first row, or does so in any case. */
static bool
reads_everything(const Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Sort:
		case T_Hash:
		case T_ModifyTable:
			return true;
		case T_Agg:
			return ((const Agg *) plan)->aggstrategy == AGG_PLAIN ||
			       ((const Agg *) plan)->aggstrategy == AGG_HASHED;
		default:
			return false;
	}
}

/* How much of a child is read, given how much of its parent is. */
static Qwen3dmExtent
extent_of_child(const Plan *child, const Plan *parent, Qwen3dmExtent of_parent)
{
	if (parent == NULL)
		return of_parent;
	if (reads_everything(parent) && !IsA(parent, ModifyTable))
		return QWEN3DM_ALL;
	switch (nodeTag(parent))
	{
		case T_ModifyTable:
		case T_Agg:
		case T_Group:
		case T_WindowAgg:
		case T_Unique:
		case T_SetOp:
		case T_IncrementalSort:
		case T_Append:
		case T_MergeAppend:
		case T_SubqueryScan:
		case T_Result:
		case T_ProjectSet:
		case T_Gather:
		case T_GatherMerge:
		case T_CustomScan:
			return of_parent;
		case T_NestLoop:
			return child == parent->lefttree ? of_parent : QWEN3DM_SOME;
		default:
			return QWEN3DM_SOME;
	}
}

typedef struct Felt
{
	Rewriter rewriter;
	bool felt;
} Felt;

static Plan *
look_below(Plan *child, Plan *parent, Rewriter *w)
{
	Felt *felt = (Felt *) w;

	if (!felt->felt)
		felt->felt = reading_is_felt(child, w);
	return child;
}

/* Reading more rows of this plan than are needed may be noticed. */
static bool
reading_is_felt(Plan *plan, Rewriter *w)
{
	Felt below = {*w, false};

	check_stack_depth();
	if (IsA(plan, LockRows))
		return true;
	if (evaluating_is_felt((Node *) plan->targetlist, w) ||
	    evaluating_is_felt((Node *) plan->qual, w))
		return true;
	switch (nodeTag(plan))
	{
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
			if (evaluating_is_felt((Node *) ((Join *) plan)->joinqual, w))
				return true;
			break;
		case T_Result:
			if (evaluating_is_felt(((Result *) plan)->resconstantqual, w))
				return true;
			break;
		case T_ValuesScan:
			if (evaluating_is_felt((Node *) ((ValuesScan *) plan)->values_lists, w))
				return true;
			break;
		case T_SampleScan:
			if (evaluating_is_felt((Node *) ((SampleScan *) plan)->tablesample, w))
				return true;
			break;
		case T_CteScan:
			/* Not into itself: the inside of a recursive one reads its work table. */
			if (reading_is_felt(list_nth(w->stmt->subplans, ((CteScan *) plan)->ctePlanId - 1), w))
				return true;
			break;
		default:
			break;
	}
	if (!reads_everything(plan))
		each_child(plan, look_below, &below.rewriter);
	return below.felt;
}

/* Evaluates its target list itself, from columns that it could as well give away. */
static bool
projects(const Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_SubqueryScan:
		case T_FunctionScan:
		case T_ValuesScan:
		case T_TableFuncScan:
		case T_CteScan:
		case T_NamedTuplestoreScan:
		case T_WorkTableScan:
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
		case T_Agg:
		case T_Group:
		case T_WindowAgg:
		case T_Gather:
		case T_GatherMerge:
			return true;
		case T_ForeignScan:
			return ((const ForeignScan *) plan)->operation == CMD_SELECT && !plan->async_capable;
		case T_Result:
			return plan->lefttree != NULL; /* else it has one row */
		default:
			return false;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Expressions
 * --------------------------------------------------------------------------------------------- */

/* What the node below has to give. */
static bool
is_column(const Node *node)
{
	return IsA(node, Var) || IsA(node, Aggref) || IsA(node, GroupingFunc) || IsA(node, WindowFunc);
}

/* Something that belongs into the node where it is. */
static bool
is_tied(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, CurrentOfExpr) ||
	    (IsA(node, SubPlan) && ((SubPlan *) node)->subLinkType == MULTIEXPR_SUBLINK))
		return true;
	return expression_tree_walker(node, is_tied, context);
}

typedef struct Collector
{
	List *columns; /* found so far */
	List *known;   /* calls that the node below will have made */
} Collector;

static bool
collect_walker(Node *node, void *context)
{
	Collector *c = context;

	if (node == NULL)
		return false;
	if (is_column(node) || list_member(c->known, node))
	{
		c->columns = list_append_unique(c->columns, node);
		return false;
	}
	return expression_tree_walker(node, collect_walker, context);
}

/* Adds to columns what node needs from below: columns, and calls of known, which count as such. */
static List *
collect_columns(List *columns, Node *node, List *known)
{
	Collector c = {columns, known};

	(void) collect_walker(node, &c);
	return c.columns;
}

/* Rewrites expressions of the node below for the one above. */
typedef struct Mover
{
	List *columns; /* of the node below */
	int varno;     /* how they are called ... */
	List *values;  /* ... unless this says what to write instead, of each column */
	List *calls;   /* found so far, in terms of OUTER_VARs; with varno INDEX_VAR */
	List *shared;  /* those of them whose value others may use, as they were written */
	bool certain;  /* what is looked at is evaluated for every row */
	bool plain;    /* so far, see QWEN3DM_BATCH_PLAIN */
} Mover;

static Var *
make_column(int varno, int attno, Node *value)
{
	return makeVar(varno, attno, exprType(value), exprTypmod(value), exprCollation(value), 0);
}

/* The column with the value of an equal call, if there is one and its function may share it. */
static Var *
find_call(const Mover *m, const FuncExpr *call, int varno)
{
	if (!called_function((const Node *) call)->shared)
		return NULL;
	for (int i = 0; i < list_length(m->calls); i++)
	{
		if (equal(list_nth(m->calls, i), call))
			return make_column(varno, list_length(m->columns) + i + 1, (Node *) call);
	}
	return NULL;
}

/* Takes a call, in terms of the columns below, into the list of calls; the column that will have
 * its value, which may be that of an equal call. */
static Var *
add_call(Mover *m, FuncExpr *call, int varno)
{
	Var *found = find_call(m, call, varno);

	if (found != NULL)
		return found;
	m->calls = lappend(m->calls, call);
	return make_column(varno, list_length(m->columns) + list_length(m->calls), (Node *) call);
}

/* Nodes that always evaluate all their arguments. */
static bool
evaluates_all(const Node *node)
{
	switch (nodeTag(node))
	{
		case T_List:
		case T_TargetEntry:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_MinMaxExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_FieldSelect:
			return true;
		case T_BoolExpr:
			return ((const BoolExpr *) node)->boolop == NOT_EXPR;
		default:
			return false;
	}
}

static Node *move(Node *node, void *context);

/* A call whose arguments do not change: the column of its value. NULL: it is not certain that it
 * is made, and no equal call is. */
static Node *
move_call(FuncExpr *call, Mover *m)
{
	Mover arguments = {.columns = m->columns, .varno = OUTER_VAR, .plain = true};
	FuncExpr *moved = (FuncExpr *) expression_tree_mutator((Node *) call, move, &arguments);

	if (!m->certain)
		return (Node *) find_call(m, moved, INDEX_VAR);
	m->plain = m->plain && is_plain(call);
	if (called_function((Node *) call)->shared)
		m->shared = lappend(m->shared, call);
	return (Node *) add_call(m, moved, INDEX_VAR);
}

static Node *
move(Node *node, void *context)
{
	Mover *m = context;
	bool certain = m->certain;
	Node *moved;

	if (node == NULL)
		return NULL;
	if (is_column(node) || is_call(node))
	{
		for (int i = 0; i < list_length(m->columns); i++)
		{
			if (!equal(list_nth(m->columns, i), node))
				continue;
			if (m->values != NIL)
				return copyObject((Node *) list_nth(m->values, i));
			return (Node *) make_column(m->varno, i + 1, node);
		}
		if (is_column(node))
			elog(ERROR, "column of a batch not found");
	}
	if (m->varno == INDEX_VAR && is_call(node) && is_fixed((Node *) ((FuncExpr *) node)->args))
	{
		moved = move_call((FuncExpr *) node, m);
		if (moved != NULL)
			return moved;
	}
	m->certain = certain && evaluates_all(node);
	moved = expression_tree_mutator(node, move, m);
	m->certain = certain;
	return moved;
}

/* Whether moving this expression would find a call to batch, besides those of known. The calls
 * whose values others may use are added to *shared, if that is wanted. */
static bool
has_batchable_call(Node *node, List *known, List **shared)
{
	Mover m = {.varno = INDEX_VAR, .certain = true, .plain = true};

	if (!is_call_walker(node, NULL))
		return false;
	m.columns = collect_columns(NIL, node, known);
	(void) move(node, &m);
	if (shared != NULL)
		*shared = list_concat(*shared, m.shared);
	return m.calls != NIL;
}

/* ---------------------------------------------------------------------------------------------
 * The node
 * --------------------------------------------------------------------------------------------- */

static List *
make_scan_tlist(const Mover *m)
{
	List *tlist = NIL;
	ListCell *lc;

	foreach (lc, m->columns)
	{
		int n = list_length(tlist) + 1;

		tlist = lappend(
		    tlist, makeTargetEntry((Expr *) make_column(OUTER_VAR, n, lfirst(lc)), n, NULL, false));
	}
	foreach (lc, m->calls)
		tlist = lappend(tlist, makeTargetEntry(lfirst(lc), list_length(tlist) + 1, NULL, false));
	return tlist;
}

static List *
columns_tlist(List *columns)
{
	List *tlist = NIL;
	ListCell *lc;

	foreach (lc, columns)
		tlist = lappend(tlist, makeTargetEntry(lfirst(lc), list_length(tlist) + 1, NULL, false));
	return tlist;
}

/* A node over plan, without target list and qual. */
static CustomScan *
make_node_over(Plan *plan, const Mover *m, Rewriter *w)
{
	CustomScan *node = makeNode(CustomScan);

	node->scan.plan = *plan;
	node->scan.plan.type = T_CustomScan;
	/* The node could do without, but only so its workers can report what they did. */
	node->scan.plan.parallel_aware = w->gathers > 0;
	node->scan.plan.async_capable = false;
	node->scan.plan.plan_node_id = ++w->last_id;
	node->scan.plan.lefttree = plan;
	node->scan.plan.righttree = NULL;
	node->scan.plan.initPlan = NIL;
	node->scan.plan.targetlist = NIL;
	node->scan.plan.qual = NIL;
	node->flags = ExecSupportsBackwardScan(plan) ? CUSTOMPATH_SUPPORT_BACKWARD_SCAN : 0;
	node->custom_scan_tlist = make_scan_tlist(m);
	node->custom_private = list_make3_int(list_length(m->columns), m->plain, w->extent);
	node->methods = &qwen3dm_batch_methods;
	return node;
}

/* A node over plan that gives tlist of the rows that pass qual, both in terms of plan's own. */
static Plan *
batch_over(Plan *plan, List *tlist, List *qual, Rewriter *w)
{
	Mover m = {.varno = INDEX_VAR, .certain = true, .plain = true};
	List *moved = NIL;
	CustomScan *node;
	ListCell *lc;

	m.columns = collect_columns(NIL, (Node *) tlist, NIL);
	m.columns = collect_columns(m.columns, (Node *) qual, NIL);
	/* Filters of a list are evaluated until one is false. */
	foreach (lc, qual)
	{
		m.certain = lc == list_head(qual);
		moved = lappend(moved, move(lfirst(lc), &m));
	}
	m.certain = qual == NIL;
	tlist = (List *) move((Node *) tlist, &m);
	node = make_node_over(plan, &m, w);
	node->scan.plan.targetlist = tlist;
	node->scan.plan.qual = moved;
	plan->targetlist = columns_tlist(m.columns);
	return (Plan *) node;
}

/* Number of the first filter that has a call to batch besides those of known, or that of all
 * filters. */
static int
first_batchable(List *qual, int from, List *known)
{
	int i = from;

	while (i < list_length(qual) && !has_batchable_call(list_nth(qual, i), known, NULL))
		i++;
	return i;
}

static List *
slice(List *list, int from, int to)
{
	List *part = NIL;

	for (int i = from; i < to; i++)
		part = lappend(part, list_nth(list, i));
	return part;
}

/*
 * The filters from `from` on, and the target list, in nodes above plan: a call in a filter is
 * started only for rows that have passed all filters before it, one in the target list for rows
 * that have passed all. What a node has asked, no later filter and no target list asks again: the
 * value goes through as a column.
 */
static Plan *
add_batches(Plan *plan, List *tlist, List *qual, int from, Rewriter *w)
{
	while (from < list_length(qual))
	{
		Mover m = {.varno = INDEX_VAR};
		List *known = NIL;
		List *mine, *rest;
		ListCell *lc;
		int next;

		(void) has_batchable_call(list_nth(qual, from), NIL, &known);
		next = first_batchable(qual, from + 1, known);
		mine = slice(qual, from, next);
		rest = slice(qual, next, list_length(qual));
		if (rest == NIL && !has_batchable_call((Node *) tlist, known, NULL))
			return batch_over(plan, tlist, mine, w);

		/* What the nodes above need goes through, by the names that the new node has for it. */
		m.columns = collect_columns(NIL, (Node *) tlist, known);
		m.columns = collect_columns(m.columns, (Node *) rest, known);
		plan = batch_over(plan, columns_tlist(m.columns), mine, w);
		foreach (lc, plan->targetlist)
			m.values = lappend(m.values, ((TargetEntry *) lfirst(lc))->expr);
		tlist = (List *) move((Node *) tlist, &m);
		qual = (List *) move((Node *) rest, &m);
		from = 0;
	}
	return has_batchable_call((Node *) tlist, NIL, NULL) ? batch_over(plan, tlist, NIL, w) : plan;
}

/* The conditions of an inner join are filters of its rows: those from the first call on go there.
 */
static void
filter_after_join(Plan *plan)
{
	Join *join = (Join *) plan;
	int from;

	if (!(IsA(plan, NestLoop) || IsA(plan, HashJoin)) || join->jointype != JOIN_INNER)
		return;
	from = first_batchable(join->joinqual, 0, NIL);
	if (from == list_length(join->joinqual))
		return;
	plan->qual = list_concat(slice(join->joinqual, from, list_length(join->joinqual)), plan->qual);
	join->joinqual = slice(join->joinqual, 0, from);
	/* With fewer conditions there may be more than one partner. */
	join->inner_unique = false;
}

static Plan *
batch_node(Plan *plan, Rewriter *w)
{
	List *tlist = plan->targetlist;
	List *qual = plan->qual;
	int from = first_batchable(qual, 0, NIL);

	if (from == list_length(qual) && !has_batchable_call((Node *) tlist, NIL, NULL))
		return plan;
	if (is_tied((Node *) tlist, NULL) || is_tied((Node *) qual, NULL))
		return plan;
	/* The rest stays there, and is looked at as part of it. */
	plan->qual = slice(qual, 0, from);
	plan->targetlist = NIL;
	if (reading_is_felt(plan, w) ||
	    evaluating_is_felt((Node *) slice(qual, from, list_length(qual)), w))
	{
		plan->targetlist = tlist;
		plan->qual = qual;
		return plan;
	}
	return add_batches(plan, tlist, qual, from, w);
}

/* ---------------------------------------------------------------------------------------------
 * Aggregates: the calls in their arguments go into a node below
 * --------------------------------------------------------------------------------------------- */

/* Replaces calls in the arguments of aggregates by columns behind those of the node below. */
static Node *
lift(Node *node, void *context)
{
	Mover *m = context;
	bool certain = m->certain;
	Node *lifted;

	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref))
	{
		Aggref *aggref = makeNode(Aggref);

		*aggref = *(Aggref *) node;
		m->certain = aggref->aggfilter == NULL;
		aggref->args = (List *) expression_tree_mutator((Node *) aggref->args, lift, m);
		m->certain = false;
		return (Node *) aggref;
	}
	if (certain && is_call(node) && is_fixed((Node *) ((FuncExpr *) node)->args))
	{
		m->plain = m->plain && is_plain((FuncExpr *) node);
		return (Node *) add_call(m, (FuncExpr *) node, OUTER_VAR);
	}
	m->certain = certain && evaluates_all(node);
	lifted = expression_tree_mutator(node, lift, m);
	m->certain = certain;
	return lifted;
}

/* The columns of the node below go through, then come the calls. */
static List *
lifted_tlist(const List *below, const Mover *m)
{
	List *tlist = NIL;
	ListCell *lc;

	foreach (lc, below)
	{
		TargetEntry *entry = flatCopyTargetEntry(lfirst(lc));

		entry->expr = (Expr *) make_column(INDEX_VAR, entry->resno, (Node *) entry->expr);
		tlist = lappend(tlist, entry);
	}
	foreach (lc, m->calls)
	{
		int n = list_length(tlist) + 1;

		tlist = lappend(
		    tlist, makeTargetEntry((Expr *) make_column(INDEX_VAR, n, lfirst(lc)), n, NULL, false));
	}
	return tlist;
}

static void
batch_arguments(Agg *agg, Rewriter *w)
{
	Mover m = {.varno = OUTER_VAR, .certain = false, .plain = true};
	Plan *below = agg->plan.lefttree;
	List *tlist, *qual;
	Qwen3dmExtent extent;
	CustomScan *node;
	ListCell *lc;

	/* Grouping sets read a row several times. */
	if (agg->groupingSets != NIL || agg->chain != NIL ||
	    !(is_call_walker((Node *) agg->plan.targetlist, NULL) ||
	      is_call_walker((Node *) agg->plan.qual, NULL)))
		return;
	if (!reads_everything(&agg->plan) && reading_is_felt(below, w))
		return;
	foreach (lc, below->targetlist)
		m.columns = lappend(m.columns, ((TargetEntry *) lfirst(lc))->expr);
	tlist = (List *) lift((Node *) agg->plan.targetlist, &m);
	qual = (List *) lift((Node *) agg->plan.qual, &m);
	if (m.calls == NIL)
		return;
	extent = w->extent;
	w->extent = extent_of_child(below, &agg->plan, extent);
	node = make_node_over(below, &m, w);
	w->extent = extent;
	node->scan.plan.targetlist = lifted_tlist(below->targetlist, &m);
	agg->plan.lefttree = (Plan *) node;
	agg->plan.targetlist = tlist;
	agg->plan.qual = qual;
}

/* ---------------------------------------------------------------------------------------------
 * Columns of a view or a subquery that nobody reads
 * --------------------------------------------------------------------------------------------- */

typedef struct Reader
{
	int varno;       /* of the columns */
	Bitmapset *read; /* their numbers; 0: the whole row */
} Reader;

static bool
find_read(Node *node, void *context)
{
	Reader *r = context;
	const Var *var = (const Var *) node;

	if (node == NULL)
		return false;
	if (IsA(node, Var) && var->varno == r->varno && var->varattno >= 0)
		r->read = bms_add_member(r->read, var->varattno);
	return expression_tree_walker(node, find_read, context);
}

/* Takes calls out of the columns of plan that the reader does not read, and columns of a subquery,
 * whose own turn comes then. */
static void
forget(Plan *plan, const Reader *r, Rewriter *w)
{
	ListCell *lc;

	if (!projects(plan) || bms_is_member(0, r->read))
		return;
	foreach (lc, plan->targetlist)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Node *value = (Node *) entry->expr;

		if (bms_is_member(entry->resno, r->read) || evaluating_is_felt(value, w))
			continue;
		if (is_call_walker(value, NULL) || (IsA(plan, SubqueryScan) && IsA(value, Var)))
			entry->expr =
			    (Expr *) makeNullConst(exprType(value), exprTypmod(value), exprCollation(value));
	}
}

/*
 * The planner keeps columns that are volatile, read or not, and ours say that they are. Where all
 * that such a column does is answer, nobody feels that it did not.
 */
static void
forget_unread(Plan *plan, Rewriter *w)
{
	Reader r = {OUTER_VAR, NULL};
	Plan *below = plan->lefttree;

	if (IsA(plan, SubqueryScan))
	{
		r.varno = ((SubqueryScan *) plan)->scan.scanrelid;
		below = ((SubqueryScan *) plan)->subplan;
	}
	else if (IsA(plan, Agg))
	{
		for (int i = 0; i < ((Agg *) plan)->numCols; i++)
			r.read = bms_add_member(r.read, ((Agg *) plan)->grpColIdx[i]);
		/* Further sets of grouping columns are of nodes of their own. */
		if (((Agg *) plan)->groupingSets != NIL || ((Agg *) plan)->chain != NIL)
			return;
	}
	else
		return;
	(void) find_read((Node *) plan->targetlist, &r);
	(void) find_read((Node *) plan->qual, &r);
	forget(below, &r, w);
}

static bool
is_batch(const Plan *plan)
{
	return IsA(plan, CustomScan) && ((const CustomScan *) plan)->methods == &qwen3dm_batch_methods;
}

/* The node right below a LIMIT learns how many rows are wanted. */
static void
pass_limit(const Limit *limit, Qwen3dmExtent extent)
{
	CustomScan *node = (CustomScan *) limit->plan.lefttree;

	if (!is_batch(&node->scan.plan) || node->scan.plan.qual != NIL ||
	    limit->limitOption != LIMIT_OPTION_COUNT || limit->limitCount == NULL ||
	    !is_fixed(limit->limitCount) || !is_fixed(limit->limitOffset))
		return;
	node->custom_exprs = list_make1(copyObject(limit->limitCount));
	if (limit->limitOffset != NULL)
		node->custom_exprs = lappend(node->custom_exprs, copyObject(limit->limitOffset));
	/* Up to that number, all are. */
	lfirst_int(list_nth_cell(node->custom_private, QWEN3DM_BATCH_EXTENT)) = extent;
}

static Plan *
rewrite(Plan *plan, Plan *parent, Rewriter *w)
{
	bool is_gather = IsA(plan, Gather) || IsA(plan, GatherMerge);
	Qwen3dmExtent of_parent = w->extent;

	check_stack_depth();
	forget_unread(plan, w);
	w->extent = extent_of_child(plan, parent, of_parent);
	w->gathers += is_gather;
	each_child(plan, rewrite, w);
	w->gathers -= is_gather;
	if (IsA(plan, Limit))
		pass_limit((Limit *) plan, w->extent);
	if (IsA(plan, Agg))
		batch_arguments((Agg *) plan, w);
	/* A merge join goes back to a row that it has marked. */
	if (projects(plan) && !(parent != NULL && IsA(parent, MergeJoin) && parent->righttree == plan))
	{
		filter_after_join(plan);
		plan = batch_node(plan, w);
	}
	w->extent = of_parent;
	return plan;
}

static Plan *
find_last_id(Plan *plan, Plan *parent, Rewriter *w)
{
	check_stack_depth();
	w->last_id = Max(w->last_id, plan->plan_node_id);
	each_child(plan, find_last_id, w);
	return plan;
}

/* Whether the plan depends on any function that users can make, as ours is; costs nothing. */
static bool
has_user_functions(const PlannedStmt *stmt)
{
	ListCell *lc;

	foreach (lc, stmt->invalItems)
	{
		if (((PlanInvalItem *) lfirst(lc))->cacheId == PROCOID)
			return true;
	}
	return false;
}

static PlannedStmt *
plan_batches(Query *parse, const char *query_string, int cursor_options, ParamListInfo bound_params)
{
	PlannedStmt *stmt;
	Rewriter w;
	ListCell *lc;

	if (next_planner != NULL)
		stmt = next_planner(parse, query_string, cursor_options, bound_params);
	else
		stmt = standard_planner(parse, query_string, cursor_options, bound_params);
	if (!qwen3dm_enable_batching || !has_user_functions(stmt))
		return stmt;

	w.stmt = stmt;
	w.last_id = 0;
	w.gathers = 0;
	(void) find_last_id(stmt->planTree, NULL, &w);
	foreach (lc, stmt->subplans)
	{
		if (lfirst(lc) != NULL)
			(void) find_last_id(lfirst(lc), NULL, &w);
	}
	w.extent = QWEN3DM_ALL_IF_RUN;
	stmt->planTree = rewrite(stmt->planTree, NULL, &w);
	w.extent = QWEN3DM_SOME;
	foreach (lc, stmt->subplans)
	{
		if (lfirst(lc) != NULL)
			lfirst(lc) = rewrite(lfirst(lc), NULL, &w);
	}
	return stmt;
}

void
qwen3dm_install_batching(void)
{
	RegisterCustomScanMethods(&qwen3dm_batch_methods);
	qwen3dm_install_run_hook();
	next_planner = planner_hook;
	planner_hook = plan_batches;
}

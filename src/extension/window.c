/*
 * window.c: requests for the elements of an array. See window.h.
 *
 * They are on the same connection, which the engine computes together; answers are taken in order.
 */
#include "postgres.h"

#include "extension/call.h"
#include "extension/window.h"

void
qwen3dm_window_start(Qwen3dmWindow *w, const Qwen3dmOptions *options, const Datum *prompts,
                     const bool *nulls, int n)
{
	memset(w, 0, sizeof(*w));
	w->options = options;
	w->prompts = prompts;
	w->nulls = nulls;
	w->n = n;
}

static bool
has_room(const Qwen3dmWindow *w)
{
	return w->next == w->head || (w->next < w->head + QWEN3DM_WINDOW && !qwen3dm_is_congested());
}

Qwen3dmRequest *
qwen3dm_window_next(Qwen3dmWindow *w, Qwen3dmFailure *failure)
{
	Qwen3dmElement *e;

	while (w->next < w->n && has_room(w))
	{
		e = &w->elements[w->next % QWEN3DM_WINDOW];
		memset(e, 0, sizeof(*e));
		if (!w->nulls[w->next])
			e->request =
			    qwen3dm_submit_prompt(w->options, DatumGetTextPP(w->prompts[w->next]), &e->failure);
		w->next++;
	}
	e = &w->elements[w->head++ % QWEN3DM_WINDOW];
	*failure = e->failure;
	if (e->request != NULL)
		qwen3dm_wait(e->request);
	return e->request;
}

/*
 * latency.c: the ring of latencies and the pressure that follows from it; see latency.h.
 *
 * Works on the caller's struct alone, in whatever thread holds it.
 */
#include "policy/latency.h"

#include <math.h>
#include <string.h>

/* Fewer calls than this say nothing. */
#define FEW_CALLS 5
#define MAX_DWELL_FACTOR 16

void
q3_latency_begin(q3_latency *l, double target_ms, int32_t window, double return_share,
                 double dwell_ms)
{
	memset(l, 0, sizeof(*l));
	l->version = Q3_LATENCY_VERSION;
	l->window = window <= 0 ? 20 : window < Q3_LATENCY_RING ? window : Q3_LATENCY_RING;
	l->target_ms = target_ms;
	l->return_share = return_share > 0 ? return_share : 0.7;
	l->dwell_ms = dwell_ms > 0 ? dwell_ms : 60000;
	l->dwell_factor = 1;
}

double
q3_latency_quantile(const q3_latency *l, double q)
{
	float sorted[Q3_LATENCY_RING];
	int32_t rank = (int32_t) ceil(q * l->n - 1e-9) - 1;

	if (l->n == 0)
		return 0;
	for (int32_t i = 0; i < l->n; i++)
	{
		int32_t k = i;

		for (; k > 0 && sorted[k - 1] > l->ring[i]; k--)
			sorted[k] = sorted[k - 1];
		sorted[k] = l->ring[i];
	}
	return sorted[rank < 0 ? 0 : rank];
}

/* One slow call is not a slow task: among fewer than 20 the percentile would be the slowest. */
static bool
too_slow(const q3_latency *l)
{
	int32_t slow = 0;

	for (int32_t i = 0; i < l->n; i++)
		slow += l->ring[i] > l->target_ms;
	return slow >= 2 && q3_latency_quantile(l, 0.95) > l->target_ms;
}

static void
change(q3_latency *l, double now_ms, int32_t pressure)
{
	double since_return = now_ms - l->returned_at;

	if (pressure > l->pressure)
	{
		/* Soon after a return: it was too early. */
		if (l->falls > 0 && since_return < l->dwell_ms)
			l->dwell_factor = fmin(l->dwell_factor * 2, MAX_DWELL_FACTOR);
		else if (since_return > l->dwell_ms * MAX_DWELL_FACTOR)
			l->dwell_factor = 1;
		l->rises++;
	}
	else
	{
		l->returned_at = now_ms;
		l->falls++;
	}
	l->pressure = pressure;
	l->changed_at = now_ms;
	l->n = l->next = 0;
}

bool
q3_latency_observe(q3_latency *l, double now_ms, double latency_ms, bool allow_degrade)
{
	int32_t most = allow_degrade ? Q3_PRESSURE_DEGRADED : Q3_PRESSURE_LEAN;

	if (!(l->target_ms > 0) || !(latency_ms >= 0))
		return false;
	/* No longer allowed: at once. */
	if (l->pressure > most)
	{
		change(l, now_ms, most);
		return true;
	}
	/* The calls that were under way when pressure rose began before it. */
	if (now_ms - latency_ms < l->changed_at && l->pressure > Q3_PRESSURE_NONE)
		return false;
	l->ring[l->next] = (float) latency_ms;
	l->next = (l->next + 1) % l->window;
	if (l->n < l->window)
		l->n++;
	if (l->n < FEW_CALLS)
		return false;
	if (l->pressure < most && too_slow(l))
		change(l, now_ms, l->pressure + 1);
	else if (l->pressure > Q3_PRESSURE_NONE && l->n == l->window &&
	         now_ms - l->changed_at >= l->dwell_ms * l->dwell_factor &&
	         q3_latency_quantile(l, 0.95) < l->target_ms * l->return_share)
		change(l, now_ms, l->pressure - 1);
	else
		return false;
	return true;
}

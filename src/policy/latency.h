/*
 * latency.h: keeps the 95th percentile of a task's latency below its target.
 *
 * The last calls' latencies lie in a ring; the percentile is exact (nearest rank). When it exceeds
 * the target, pressure rises by one level: first auto rows go to efficient and escalate no more
 * than the certificate needs, then, only if degrading is allowed, they stay in efficient whatever
 * their margin. A change empties the ring, because what was measured under the old level says
 * nothing about the new one. Pressure falls by one level when it has lasted for the dwell time and
 * the percentile is below the return level (hysteresis). If it has to rise again soon after, the
 * load was not gone, and the next dwell is twice as long, up to 16 times: steady load does not make
 * it flap. decision.h says what a level means for a row.
 *
 * A plain struct; time is the caller's and must not go backwards. Thread-agnostic.
 */
#ifndef Q3_POLICY_LATENCY_H
#define Q3_POLICY_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#define Q3_LATENCY_VERSION 1
#define Q3_LATENCY_RING 64

typedef enum q3_pressure
{
	Q3_PRESSURE_NONE = 0,
	Q3_PRESSURE_LEAN,    /* efficient, with as few escalations as the certificate allows */
	Q3_PRESSURE_DEGRADED /* efficient, no escalations: beyond the certificate */
} q3_pressure;

typedef struct q3_latency
{
	uint32_t version;
	int32_t pressure; /* q3_pressure */
	int32_t window;   /* calls that the percentile is taken over; at most the ring's size */
	int32_t n, next;  /* filled; where the next one goes */
	double target_ms;
	double return_share; /* come back below this share of the target */
	double dwell_ms;     /* least time under pressure before coming back */
	double dwell_factor; /* 1, 2, 4, 8 or 16 */
	double changed_at;   /* ms: when pressure last changed */
	double returned_at;  /* ms: when it last fell */
	int64_t rises, falls;
	float ring[Q3_LATENCY_RING]; /* ms */
} q3_latency;

/*
 * target_ms 0: no target, never any pressure. Window 20, return share 0.7 and a dwell of 60 s if
 * what is given is 0.
 */
extern void q3_latency_begin(q3_latency *l, double target_ms, int32_t window, double return_share,
                             double dwell_ms);
/* Counts a call that ended at now_ms; true if pressure changed. */
extern bool q3_latency_observe(q3_latency *l, double now_ms, double latency_ms, bool allow_degrade);
/* Of the calls in the window, q in (0, 1]; 0 if there are none. */
extern double q3_latency_quantile(const q3_latency *l, double q);

#endif

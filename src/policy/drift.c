/*
 * drift.c: the e-detector of falling agreement and the early warning; see drift.h.
 *
 * Works on the caller's structs alone, in whatever thread holds them.
 */
#include "policy/drift.h"

#include <math.h>
#include <string.h>

/* Falls of agreement that are bet on: a fall in between is found almost as fast. */
static const double falls[Q3_DRIFT_FALLS] = {0.02, 0.035, 0.05, 0.08, 0.15, 0.30};

void
q3_drift_begin(q3_drift *d, double reference, double false_alarm, int64_t horizon)
{
	memset(d, 0, sizeof(*d));
	d->version = Q3_DRIFT_VERSION;
	d->reference = fmax(0.01, fmin(reference, 0.9999));
	d->limit = log((double) horizon / false_alarm);
	for (int k = 0; k < Q3_DRIFT_FALLS; k++)
	{
		/* L is the likelihood ratio of the fallen rate to the reference. */
		double rate = d->reference - fmin(falls[k], d->reference / 2);

		d->log_agree[k] = log(rate / d->reference);
		d->log_disagree[k] = log((1 - rate) / (1 - d->reference));
	}
}

/* The logarithm of R, the mean over the falls; 0 if that is less. */
static double
log_statistic(const q3_drift *d)
{
	double greatest = 0, sum = 0;

	for (int k = 0; k < Q3_DRIFT_FALLS; k++)
		greatest = fmax(greatest, d->log_sum[k]);
	for (int k = 0; k < Q3_DRIFT_FALLS; k++)
		sum += exp(d->log_sum[k] - greatest);
	/* The sum is one of 1 + R. */
	return fmax(0, greatest + log(fmax(sum / Q3_DRIFT_FALLS - exp(-greatest), exp(-greatest))));
}

bool
q3_drift_observe(q3_drift *d, bool agreed)
{
	bool near = false;

	if (d->alarm)
		return true;
	d->rows++;
	d->agreed += agreed;
	for (int k = 0; k < Q3_DRIFT_FALLS; k++)
	{
		double log_r = d->log_sum[k] + (agreed ? d->log_agree[k] : d->log_disagree[k]);

		d->log_sum[k] = fmax(log_r, 0) + log1p(exp(-fabs(log_r)));
		near |= d->log_sum[k] >= d->limit;
	}
	/* A mean does not reach what none of its terms reaches. */
	d->alarm = near && log_statistic(d) >= d->limit;
	return d->alarm;
}

double
q3_drift_level(const q3_drift *d)
{
	return fmin(1, log_statistic(d) / d->limit);
}

/* ---- Early warning ---- */

#define GROUP 32
/* In deviations of a group's mean: what is passed over, and the sum that warns. */
#define SLACK 0.75
#define SUM_LIMIT 8.0
#define DEVIATION_WEIGHT 0.1
/* One odd group is no drift. */
#define MAX_CHANGE 6.0

void
q3_warning_begin(q3_warning *w, bool rises, int64_t base)
{
	memset(w, 0, sizeof(*w));
	w->version = Q3_WARNING_VERSION;
	w->rises = rises;
	w->base = base > 2 * GROUP ? base : 2 * GROUP;
}

static void
end_group(q3_warning *w)
{
	double sd = sqrt(w->squares / (double) (w->base - 1));
	double change = w->group / GROUP - w->mean;

	/* Values that were all the same have no deviation; any unit will do for what differs. */
	change /= fmax(sd, 1e-6) / sqrt(GROUP);
	change = fmax(-MAX_CHANGE, fmin(w->rises ? change : -change, MAX_CHANGE));
	w->deviation += DEVIATION_WEIGHT * (change - w->deviation);
	w->sum = fmax(0, w->sum + change - SLACK);
	w->group = 0;
	if (w->sum >= SUM_LIMIT)
		w->warned = true;
}

bool
q3_warning_observe(q3_warning *w, double value)
{
	if (!isfinite(value))
		return w->warned;
	w->rows++;
	if (w->rows <= w->base)
	{
		double d = value - w->mean;

		w->mean += d / (double) w->rows;
		w->squares += d * (value - w->mean);
		return false;
	}
	w->group += value;
	if ((w->rows - w->base) % GROUP == 0)
		end_group(w);
	return w->warned;
}

/*
 * schedule_queue.c: who waits, who may run, and who waits for an equal job.
 *
 * Each role has a queue in order of arrival; the role that has got least for its weight is next. A
 * job is admitted when the KV cache has room for its whole prompt and answer, so that no running
 * job can ever run out of room. One that does not fit holds up nobody but its own role, until it
 * has waited too long: then nobody overtakes it any more.
 *
 * A job that equals one in flight is not computed: it follows that one and gets its answer. When
 * the first of them is cancelled, the next takes over what has been computed so far.
 */
#include "engine/schedule.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* From here on nobody overtakes a job that waits for room. */
#define OVERTAKE_NS UINT64_C(2000000000)

/* ---------------------------------------------------------------------------------------------
 * Roles
 * --------------------------------------------------------------------------------------------- */

/* The least time of the roles that have jobs; 0 when none has. */
static double
least_time(const q3_scheduler *s)
{
	double least = 0;
	bool any = false;

	for (const q3_role *r = s->roles; r != NULL; r = r->next)
		if (r->n_jobs > 0 && (!any || r->time < least))
		{
			least = r->time;
			any = true;
		}
	return least;
}

/* Roles without jobs are remembered while they are ahead of the others. */
static void
drop_roles(q3_scheduler *s)
{
	double least = least_time(s);
	bool idle = true;

	for (const q3_role *r = s->roles; r != NULL; r = r->next)
		idle = idle && r->n_jobs == 0;
	for (q3_role **link = &s->roles; *link != NULL;)
	{
		q3_role *r = *link;

		if (r->n_jobs > 0 || (!idle && r->time > least))
		{
			link = &r->next;
			continue;
		}
		*link = r->next;
		free(r);
	}
}

/* The job's role; NULL when out of memory. One that comes back has saved up nothing meanwhile. */
static q3_role *
role_of(q3_scheduler *s, const q3_job *job)
{
	q3_role *r = s->roles;
	double least;

	while (r != NULL && r->id != job->role)
		r = r->next;
	if (r == NULL)
	{
		r = calloc(1, sizeof(*r));
		if (r == NULL)
			return NULL;
		r->id = job->role;
		r->last_waiting = &r->waiting;
		r->next = s->roles;
		s->roles = r;
	}
	if (r->n_jobs == 0)
	{
		least = least_time(s);
		r->time = r->time > least ? r->time : least;
	}
	r->weight = job->weight > 0 ? job->weight : 1;
	return r;
}

static void
unlink_waiting(q3_role *r, q3_job **link)
{
	q3_job *job = *link;

	*link = job->next;
	if (r->last_waiting == &job->next)
		r->last_waiting = link;
	job->next = NULL;
}

void
q3_schedule_keep_promise(q3_job *job, int32_t n)
{
	double time = n / job->owner_role->weight;

	time = time < job->promised ? time : job->promised;
	job->promised -= time;
	job->owner_role->promised -= time;
}

void
q3_schedule_charge(q3_job *job, int32_t n, bool prompt)
{
	job->owner_role->time += n / job->owner_role->weight;
	if (prompt)
		q3_schedule_keep_promise(job, n);
}

/* ---------------------------------------------------------------------------------------------
 * Equal jobs
 * --------------------------------------------------------------------------------------------- */

static q3_job **
bucket_of(q3_scheduler *s, const q3_job *job)
{
	uint32_t h;

	memcpy(&h, job->key, sizeof(h));
	return &s->equal[h % Q3_EQUAL_BUCKETS];
}

static q3_job *
find_equal(q3_scheduler *s, const q3_job *job)
{
	q3_job *other = *bucket_of(s, job);

	while (other != NULL && memcmp(other->key, job->key, sizeof(job->key)) != 0)
		other = other->next_equal;
	return other;
}

static void
unlink_equal(q3_scheduler *s, q3_job *job)
{
	q3_job **link = bucket_of(s, job);

	if (!job->shareable)
		return;
	while (*link != NULL && *link != job)
		link = &(*link)->next_equal;
	if (*link != NULL)
		*link = job->next_equal;
	job->next_equal = NULL;
}

static void
link_equal(q3_scheduler *s, q3_job *job)
{
	q3_job **bucket = bucket_of(s, job);

	if (!job->shareable)
		return;
	job->next_equal = *bucket;
	*bucket = job;
}

static void
follow(q3_job *leader, q3_job *job)
{
	job->next = NULL;
	*leader->last_follower = job;
	leader->last_follower = &job->next;
}

/* The next job takes over where the leader is: answers, room, and place. Both are equal. */
static void
take_over(q3_job *leader, q3_job *job)
{
	q3_output *output = job->output;
	q3_labels *labels = job->labels;
	q3_cached_schema *schema = job->schema;
	q3_constraint *constraint = job->constraint;
	q3_tokens pending = job->pending;
	double *hidden = job->hidden;

	job->output = leader->output;
	leader->output = output;
	job->labels = leader->labels;
	leader->labels = labels;
	job->schema = leader->schema;
	leader->schema = schema;
	job->constraint = leader->constraint;
	leader->constraint = constraint;
	job->in_value = leader->in_value;
	job->think_left = leader->think_left;
	job->pending = leader->pending;
	leader->pending = pending;
	job->pending_done = leader->pending_done;
	job->hidden = leader->hidden;
	leader->hidden = hidden;
	job->logprob_sum = leader->logprob_sum;
	job->n_logprobs = leader->n_logprobs;
	job->finish = leader->finish;
	job->started_ns = leader->started_ns == 0 || leader->started_ns > job->submitted_ns
	                      ? leader->started_ns
	                      : job->submitted_ns;
	job->owner_role = leader->owner_role;
	job->seq = leader->seq;
	leader->seq = NULL;
	job->promised = leader->promised;
	job->generated = leader->generated;
	memset(&leader->generated, 0, sizeof(leader->generated));
	memcpy(job->probes, leader->probes, sizeof(job->probes));
	job->n_probes = leader->n_probes;
	leader->n_probes = 0;
	job->next_branch = leader->next_branch;
	job->refused = leader->refused;
	atomic_store(&job->phase, atomic_load(&leader->phase));
	atomic_store(&job->prompt_done, atomic_load(&leader->prompt_done));
	atomic_store(&job->cached_tokens, atomic_load(&leader->cached_tokens));
	atomic_store(&job->output_tokens, atomic_load(&leader->output_tokens));
	atomic_store(&job->kv_tokens, atomic_load(&leader->kv_tokens));
	atomic_store(&leader->kv_tokens, 0);
}

/* What was computed for the leader counts once. */
static void
forget_progress(q3_job *leader)
{
	atomic_store(&leader->prompt_done, 0);
	atomic_store(&leader->cached_tokens, 0);
	atomic_store(&leader->output_tokens, leader->resumed);
	leader->owner_role = NULL;
}

/* A cancelled job's first follower in its place, if there is one; the job itself is done then. */
static q3_job *
replace(q3_scheduler *s, q3_job *leader)
{
	q3_job *heir = leader->followers;

	if (heir == NULL)
		return NULL;
	unlink_equal(s, leader);
	heir->followers = heir->next;
	heir->last_follower = heir->next != NULL ? leader->last_follower : &heir->followers;
	heir->next = leader->next;
	leader->followers = NULL;
	leader->last_follower = &leader->followers;
	leader->next = NULL;
	take_over(leader, heir);
	forget_progress(leader);
	link_equal(s, heir);
	return heir;
}

/* ---------------------------------------------------------------------------------------------
 * Coming and going
 * --------------------------------------------------------------------------------------------- */

void
q3_schedule_enqueue(q3_scheduler *s, q3_job *job)
{
	q3_job *equal = job->shareable ? find_equal(s, job) : NULL;
	q3_role *r;

	if (equal != NULL)
	{
		follow(equal, job);
		return;
	}
	r = role_of(s, job);
	if (r == NULL)
	{
		q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
		q3_schedule_finish(s, job);
		return;
	}
	job->owner_role = r;
	r->n_jobs++;
	job->next = NULL;
	*r->last_waiting = job;
	r->last_waiting = &job->next;
	link_equal(s, job);
}

void
q3_schedule_forget(q3_scheduler *s, q3_job *job)
{
	unlink_equal(s, job);
	if (job->owner_role == NULL)
		return;
	job->owner_role->promised -= job->promised;
	job->owner_role->n_jobs--;
	job->owner_role = NULL;
}

static void
cancel(q3_scheduler *s, q3_job *job)
{
	q3_fail(&job->error, Q3_ERR_CANCELLED, "request was cancelled");
	q3_schedule_finish(s, job);
}

static void
drop_followers(q3_scheduler *s, q3_job *leader)
{
	q3_job **link = &leader->followers;

	while (*link != NULL)
	{
		q3_job *job = *link;

		if (!atomic_load(&job->cancelled))
		{
			link = &job->next;
			continue;
		}
		*link = job->next;
		if (leader->last_follower == &job->next)
			leader->last_follower = link;
		job->next = NULL;
		cancel(s, job);
	}
}

static void
drop_waiting(q3_scheduler *s, q3_role *r)
{
	for (q3_job **link = &r->waiting; *link != NULL;)
	{
		q3_job *job = *link, *heir;

		drop_followers(s, job);
		if (!atomic_load(&job->cancelled))
		{
			link = &job->next;
			continue;
		}
		heir = replace(s, job);
		if (heir == NULL)
			unlink_waiting(r, link);
		else
		{
			*link = heir;
			if (r->last_waiting == &job->next)
				r->last_waiting = &heir->next;
			link = &heir->next;
		}
		cancel(s, job);
	}
}

void
q3_schedule_drop_cancelled(q3_scheduler *s)
{
	for (int32_t i = 0; i < s->n_running; i++)
	{
		q3_job *job = s->running[i], *heir;

		drop_followers(s, job);
		if (!atomic_load(&job->cancelled))
			continue;
		heir = replace(s, job);
		if (heir != NULL)
		{
			s->running[i] = heir;
			cancel(s, job);
			continue;
		}
		q3_fail(&job->error, Q3_ERR_CANCELLED, "request was cancelled");
		job->ended = true;
	}
	q3_schedule_sweep(s);
	for (q3_role *r = s->roles; r != NULL; r = r->next)
		drop_waiting(s, r);
}

void
q3_schedule_sweep(q3_scheduler *s)
{
	int32_t n = 0, n_ended = 0;
	q3_job *ended[Q3_MAX_RUNNING];

	for (int32_t i = 0; i < s->n_running; i++)
	{
		q3_job *job = s->running[i];

		if (!job->ended)
			s->running[n++] = job;
		else
		{
			s->rows_taken -= q3_takes_rows(job);
			ended[n_ended++] = job;
		}
	}
	s->n_running = n;
	for (int32_t i = 0; i < n_ended; i++)
		q3_schedule_finish(s, ended[i]);
}

/* ---------------------------------------------------------------------------------------------
 * Admission
 * --------------------------------------------------------------------------------------------- */

static bool
waits_too_long(const q3_job *job, uint64_t now)
{
	return job->refused && now - job->submitted_ns > OVERTAKE_NS;
}

/* Whose job is next: one that has waited too long, or that of the role with the least time. */
static q3_role *
next_role(q3_scheduler *s, uint64_t now)
{
	q3_role *oldest = NULL, *least = NULL;

	for (q3_role *r = s->roles; r != NULL; r = r->next)
	{
		if (r->waiting == NULL || r->stuck)
			continue;
		if (waits_too_long(r->waiting, now) &&
		    (oldest == NULL || r->waiting->submitted_ns < oldest->waiting->submitted_ns))
			oldest = r;
		if (least == NULL || r->time + r->promised < least->time + least->promised)
			least = r;
	}
	return oldest != NULL ? oldest : least;
}

/* Room for the prompt and the longest answer, whose last token is never stored. */
int32_t
q3_schedule_room(const q3_job *job)
{
	int32_t n = q3_prompt_length(job);

	if (job->kind == Q3_JOB_GENERATE)
	{
		bool pauses = job->pause_at > 0 && job->pause_at < job->max_tokens;

		/* What the answer begins with is in the prompt. */
		n += (pauses ? job->pause_at : job->max_tokens) - 1 - atomic_load(&job->output_tokens);
	}
	if (job->kind == Q3_JOB_CLASSIFY)
		n += q3_labels_depth(job->labels) - job->labels->branches[0].depth;
	return n;
}

/* A sequence with all the room, and what the prefix cache has of the prompt; NULL: no room. */
static q3_seq *
make_room(q3_scheduler *s, q3_job *job)
{
	q3_seq *seq = q3_seq_create(s->rt);

	if (seq == NULL)
		return NULL;
	if (q3_takes_prefixes(job))
		q3_seq_attach(seq, q3_prefix_key_of(job), job->prompt.ids, (int32_t) job->prompt.n);
	if (q3_seq_reserve(seq, q3_schedule_room(job)))
		return seq;
	q3_seq_free(seq);
	return NULL;
}

static void
start_job(q3_scheduler *s, q3_job *job, q3_seq *seq)
{
	q3_role *r = job->owner_role;
	int32_t blocks = (q3_schedule_room(job) + s->kv_block_tokens - 1) / s->kv_block_tokens;

	job->seq = seq;
	atomic_store(&job->prompt_done, q3_seq_length(seq));
	atomic_store(&job->cached_tokens, q3_seq_length(seq));
	s->stats.cached_tokens += (uint64_t) q3_seq_length(seq);
	atomic_store(&job->phase, Q3_PHASE_PREFILL);
	atomic_store(&job->kv_tokens, blocks * s->kv_block_tokens);
	job->promised = q3_prompt_left(job) / r->weight;
	r->promised += job->promised;
	s->rows_taken += q3_takes_rows(job);
	s->running[s->n_running++] = job;
}

static void
fail_for_ever(q3_scheduler *s, q3_role *r)
{
	q3_job *job = r->waiting;

	unlink_waiting(r, &r->waiting);
	q3_fail(&job->error, Q3_ERR_TOO_LONG,
	        "request needs room for %" PRId32
	        " tokens, which the key-value cache does not have beside its pinned prefixes",
	        q3_schedule_room(job));
	q3_error_hint(&job->error, "Lower max_tokens, unpin, or increase qwen3dm.kv_cache_size.");
	q3_schedule_finish(s, job);
}

/* Those that yield do so in the next step. */
static void
make_way(q3_scheduler *s)
{
	for (int32_t i = 0; i < s->n_running; i++)
		if (s->running[i]->yields)
			atomic_store(&s->running[i]->cancelled, true);
}

/* The next job of the role; false when nobody else may be admitted either. */
static bool
admit_from(q3_scheduler *s, q3_role *r, uint64_t now)
{
	q3_job *job = r->waiting;
	q3_seq *seq;

	if (q3_takes_rows(job) && s->rows_taken >= s->max_rows)
	{
		r->stuck = true;
		return true;
	}
	seq = make_room(s, job);
	if (seq != NULL)
	{
		unlink_waiting(r, &r->waiting);
		start_job(s, job, seq);
		return true;
	}
	if (s->n_running == 0) /* nobody will ever make room */
	{
		fail_for_ever(s, r);
		return true;
	}
	make_way(s);
	job->refused = true;
	r->stuck = true;
	return !waits_too_long(job, now);
}

void
q3_schedule_admit(q3_scheduler *s)
{
	uint64_t now = q3_now_ns();
	bool more = true;

	drop_roles(s);
	for (q3_role *r = s->roles; r != NULL; r = r->next)
		r->stuck = false;
	while (more && s->n_running < Q3_MAX_RUNNING)
	{
		q3_role *r = next_role(s, now);

		more = r != NULL && admit_from(s, r, now);
	}
}

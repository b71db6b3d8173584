/*
 * simd_blocks.h: the weights of 32-weight and K-quant blocks from their integers, for instruction
 * sets that unpack these in vectors (included by the vector files, which define q32, the vectors of
 * 32 integers, and how nibbles, fifth bits and scales are applied to them).
 */

INLINE void
one_scale(const uint8_t *w, w_head *head)
{
	head->d = set1_half(w);
}

INLINE void
scale_and_minimum(const uint8_t *w, w_head *head)
{
	set1_halves(w, &head->d, &head->m);
}

#define q4_0_begin one_scale
#define q5_0_begin one_scale
#define q8_0_begin one_scale
#define q4_1_begin scale_and_minimum
#define q5_1_begin scale_and_minimum
#define q4_k_begin k_begin
#define q5_k_begin k_begin

INLINE w32
q4_0_weights(const uint8_t *w, const w_head *head, int j)
{
	q32 q;

	(void) j;
	nibbles(((const block_q4_0 *) w)->qs, q);
	return scaled(head->d, q, 8);
}

INLINE w32
q4_1_weights(const uint8_t *w, const w_head *head, int j)
{
	q32 q;

	(void) j;
	nibbles(((const block_q4_1 *) w)->qs, q);
	return scaled_and_shifted(head->d, head->m, q);
}

INLINE w32
q5_0_weights(const uint8_t *w, const w_head *head, int j)
{
	q32 q;

	(void) j;
	nibbles(((const block_q5_0 *) w)->qs, q);
	add_fifth_bits(load_u32(((const block_q5_0 *) w)->qh), q);
	return scaled(head->d, q, 16);
}

INLINE w32
q5_1_weights(const uint8_t *w, const w_head *head, int j)
{
	q32 q;

	(void) j;
	nibbles(((const block_q5_1 *) w)->qs, q);
	add_fifth_bits(load_u32(((const block_q5_1 *) w)->qh), q);
	return scaled_and_shifted(head->d, head->m, q);
}

INLINE w32
q4_k_weights(const uint8_t *w, const w_head *head, int j)
{
	q32 q;

	group_nibbles(((const block_q4_k *) w)->qs, j, q);
	return scaled_and_shifted(v_set1(head->scale[j]), v_set1(head->minimum[j]), q);
}

INLINE w32
q5_k_weights(const uint8_t *w, const w_head *head, int j)
{
	q32 q;

	group_nibbles(((const block_q5_k *) w)->qs, j, q);
	add_group_bits(((const block_q5_k *) w)->qh, j, q);
	return scaled_and_shifted(v_set1(head->scale[j]), v_set1(head->minimum[j]), q);
}

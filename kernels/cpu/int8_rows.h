/*
 * int8_rows.h: what the products of packed matrices with activations of 8 bits read of a matrix,
 * and the choice among their tiles (included by simd_int8.h and neon_int8.h).
 */

/* Packed rows, and what they mean. */
typedef struct int8_rows
{
	const uint8_t *hi, *lo; /* lo: NULL for nibbles */
	const uint16_t *scale, *offset;
	float factor, middle; /* see planes_layout.h; middle: over -128 */
	int32_t n_blocks;
} int8_rows;

static int8_rows
int8_rows_at(const q3_planes *w, bool nibbles, int32_t row)
{
	size_t at = panel_block(w, row / Q3_PANEL_ROWS, 0), in_panel = (size_t) (row % Q3_PANEL_ROWS);

	return (int8_rows){
	    .hi = w->hi + at * NIBBLE_BLOCK + in_panel * 4,
	    .lo = nibbles ? NULL : w->lo + at * NIBBLE_BLOCK + in_panel * 4,
	    .scale = w->scale + at * Q3_PANEL_ROWS + in_panel,
	    .offset = w->offset == NULL ? NULL : w->offset + at * Q3_PANEL_ROWS + in_panel,
	    .factor = nibbles ? nibble_factor(w->kind) : byte_factor(w->kind),
	    .middle = nibble_middle(w->kind) * -0x1p-7f,
	    .n_blocks = w->cols / Q3_PLANE_BLOCK,
	};
}

/* A tile of tokens from x on with n_rows rows, the first of them row r, to y[token] + r. */
typedef void (*int8_fn)(const int8_rows *w, const q3_acts *x, float *const *y, int32_t r,
                        int n_rows);

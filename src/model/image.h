/*
 * image.h: the packed image of a model: every matrix that can be packed, in planes of bits.
 *
 * One image serves both modes and every engine that is started for the same file. It lies in a
 * memfd (sealed once it is packed) or in a file of the image cache; whoever has the descriptor maps
 * it. Everything in front of the planes (header and table) follows from the model alone, so an
 * image that comes from outside is checked by making that part anew and comparing all its bytes.
 * The planes themselves hold no offsets: whatever their bytes are, reading them is safe. Those in
 * the cache are checked by a SHA-256, which stands between table and planes.
 */
#ifndef Q3_IMAGE_H
#define Q3_IMAGE_H

#include "model/model_internal.h"

/* Changes with every change of the layout or of the values in the planes. */
#define Q3_IMAGE_VERSION 2

/* Unmaps and closes; fine for a model without image. */
extern void q3_image_free(q3_model *m);

#endif

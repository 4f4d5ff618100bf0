/* Classifies an image with an engine plan, without Python.
 *
 *   ghostnets export runs/NAME --out net.engine --format engine
 *   cmake -S examples/c -B build -DCMAKE_PREFIX_PATH=PREFIX && cmake --build build     # PREFIX of cmake --install
 *   build/classify net.engine photo.ppm
 *
 * The image is a binary PPM of 8 bits, for example by `magick photo.jpg -resize 256x256^ -gravity center -extent 224x224
 * photo.ppm`: resized and cropped as the network's preprocessing says (ghostnets_metadata).
 */
#include <ghostnets_engine.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* what, const char* why) {
    fprintf(stderr, "%s: %s\n", what, why);
    return 1;
}

/* Reads a PPM with 8 bits a channel; NULL for any other file. */
static unsigned char* read_ppm(const char* path, int* width, int* height) {
    unsigned char* pixels = NULL;
    int depth = 0;
    FILE* file = fopen(path, "rb");
    if (!file) return NULL;
    if (fscanf(file, "P6 %d %d %d", width, height, &depth) == 3 && fgetc(file) != EOF && depth == 255 && *width > 0 &&
        *height > 0 && *width <= 10000 && *height <= 10000) {
        const size_t size = (size_t)*width * (size_t)*height * 3;
        pixels = malloc(size);
        if (pixels && fread(pixels, 1, size, file) != size) {
            free(pixels);
            pixels = NULL;
        }
    }
    fclose(file);
    return pixels;
}

static int classify(ghostnets_session* session, const ghostnets_images* images) {
    int shape[4], best = 0;
    if (ghostnets_output_shape(session, 0, images, shape) != GHOSTNETS_OK) return fail("shape", ghostnets_last_error());
    const size_t size = (size_t)shape[1];
    float* scores = malloc(size * sizeof *scores);
    if (!scores) return fail("scores", "not enough memory");
    const ghostnets_status status = ghostnets_run(session, images, &scores, &size);
    if (status == GHOSTNETS_OK) {
        for (int i = 1; i < shape[1]; ++i)
            if (scores[i] > scores[best]) best = i;
        printf("class %d of %d, logit %.6g\n", best, shape[1], scores[best]);
    }
    free(scores);
    return status == GHOSTNETS_OK ? 0 : fail("run", ghostnets_last_error());
}

int main(int count, char** arguments) {
    if (count != 3) return fail(arguments[0], "give an engine plan and a PPM image");
    ghostnets_session* session = NULL;
    ghostnets_info info;
    if (ghostnets_load(arguments[1], 0, NULL, NULL, &session) != GHOSTNETS_OK)
        return fail(arguments[1], ghostnets_last_error());
    int status = 1;
    ghostnets_images images = {NULL, 1, 1, 0, 0};
    unsigned char* pixels = read_ppm(arguments[2], &images.width, &images.height);
    images.data = pixels;
    if (ghostnets_query(session, &info) != GHOSTNETS_OK) {
        fail("query", ghostnets_last_error());
    } else if (info.channels != 3 || info.gives_maps) {
        fail(arguments[1], "the network does not classify colour images");
    } else if (!pixels) {
        fail(arguments[2], "this is no binary PPM of 8 bits");
    } else {
        printf("%s, %s, %d threads\n", info.precision, info.isa, info.threads);
        status = classify(session, &images);
    }
    free(pixels);
    ghostnets_free(session);
    return status;
}

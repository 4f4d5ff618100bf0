/* For test_c_interface.py: load FILE..., prints the status of each and whether its error is a sentence; run FILE IMAGE
 * HEIGHT WIDTH ARE_BYTES OUTPUT, writes the outputs of two images. */
#include <ghostnets_engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(condition)                                                                            \
    if (!(condition)) {                                                                            \
        fprintf(stderr, "line %d: %s; %s\n", __LINE__, #condition, ghostnets_last_error());        \
        exit(1);                                                                                   \
    }

static void load(const char* path) {
    ghostnets_session* session = NULL;
    const ghostnets_status status = ghostnets_load(path, 1, NULL, NULL, &session);
    NEED((status == GHOSTNETS_OK) == (session != NULL));
    NEED(status == GHOSTNETS_OK || strlen(ghostnets_last_error()) > 10);
    printf("%d %s\n", (int)status, status == GHOSTNETS_OK ? "" : ghostnets_last_error());
    if (session) {  /* what was accepted must run, or be rejected */
        ghostnets_info info;
        NEED(ghostnets_query(session, &info) == GHOSTNETS_OK);
        ghostnets_images images = {NULL, 0, 1, 9, 7};
        int shape[4];
        if (ghostnets_output_shape(session, 0, &images, shape) == GHOSTNETS_OK && info.outputs == 1) {
            const size_t size = (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3];
            float* outputs = calloc(size, sizeof(float));
            float* pixels = calloc((size_t)info.channels * 9 * 7, sizeof(float));
            NEED(outputs && pixels);
            images.data = pixels;
            ghostnets_run(session, &images, &outputs, &size);
            free(outputs);
            free(pixels);
        }
    }
    ghostnets_free(session);
}

static void count_layers(void* context, const ghostnets_layer* layer) {
    NEED(layer->seconds >= 0 && strlen(layer->kind) > 0);
    ++*(int*)context;
}

static void run(const char* path, const char* image, int height, int width, int are_bytes, const char* to) {
    ghostnets_session* session = NULL;
    ghostnets_info info;
    int shape[4], layers = 0;
    NEED(ghostnets_load(path, 2, NULL, NULL, &session) == GHOSTNETS_OK);
    NEED(ghostnets_query(session, &info) == GHOSTNETS_OK);
    NEED(info.threads == 2 && info.outputs == 1 && !info.gives_maps && info.channels == 3);
    NEED(ghostnets_metadata(session, "note") && !strcmp(ghostnets_metadata(session, "note"), "caf\xc3\xa9 \"x\""));
    NEED(!ghostnets_metadata(session, "nothing"));
    const size_t bytes = (size_t)2 * 3 * (size_t)height * (size_t)width * (are_bytes ? 1 : sizeof(float));
    void* data = malloc(bytes);
    FILE* file = fopen(image, "rb");
    NEED(data && file && fread(data, 1, bytes, file) == bytes);
    fclose(file);
    const ghostnets_images images = {data, are_bytes, 2, height, width};
    NEED(ghostnets_output_shape(session, 0, &images, shape) == GHOSTNETS_OK);
    NEED(shape[0] == 2 && shape[2] == 1 && shape[3] == 1);
    const size_t size = (size_t)2 * (size_t)shape[1], wrong = size - 1;
    float *first = malloc(size * sizeof(float)), *second = malloc(size * sizeof(float));
    NEED(first && second);
    NEED(ghostnets_run(session, &images, &first, &size) == GHOSTNETS_OK);
    NEED(ghostnets_profile(session, &images, &second, &size, count_layers, &layers) == GHOSTNETS_OK && layers > 10);
    NEED(!memcmp(first, second, size * sizeof(float)));
    NEED(ghostnets_run(session, &images, &first, &wrong) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_run(session, NULL, &first, &size) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_run(NULL, &images, &first, &size) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_output_shape(session, 1, &images, shape) == GHOSTNETS_BAD_ARGUMENT);
    const ghostnets_images none = {data, are_bytes, 0, height, width}, huge = {data, are_bytes, 1, 1 << 30, 1 << 30};
    NEED(ghostnets_run(session, &none, &first, &size) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_run(session, &huge, &first, &size) != GHOSTNETS_OK);
    NEED(ghostnets_run(session, &images, &second, &size) == GHOSTNETS_OK && !memcmp(first, second, size));
    file = fopen(to, "wb");
    NEED(file && fwrite(first, sizeof(float), size, file) == size && !fclose(file));
    free(data);
    free(first);
    free(second);
    ghostnets_free(session);
}

int main(int count, char** arguments) {
    ghostnets_session* session = NULL;
    NEED(!strcmp(ghostnets_last_error(), ""));
    NEED(ghostnets_load(NULL, 1, NULL, NULL, &session) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_load("x", -1, NULL, NULL, &session) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_load("x", 1, "f16", NULL, &session) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_load("x", 1, NULL, "abacus", &session) == GHOSTNETS_BAD_ARGUMENT);
    NEED(ghostnets_load("there is no such file", 1, NULL, NULL, &session) == GHOSTNETS_BAD_FILE);
    ghostnets_free(NULL);
    if (count == 8 && !strcmp(arguments[1], "run")) {
        run(arguments[2], arguments[3], atoi(arguments[4]), atoi(arguments[5]), atoi(arguments[6]), arguments[7]);
    } else {
        for (int i = 2; i < count; ++i) load(arguments[i]);
    }
    return 0;
}

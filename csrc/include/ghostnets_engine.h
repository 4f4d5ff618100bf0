/* The engine of ghostnets for C: loads a network that `ghostnets export --format engine` or `Session.save` wrote, and runs
 * it. Needs no Python. docs/engine.md describes it; examples/c classifies an image.
 *
 * No function throws, and none ends the process. A failed one returns another status than GHOSTNETS_OK and leaves its
 * arguments as they were; ghostnets_last_error says in a sentence what was wrong. Files need not be trusted.
 *
 * Functions may be called from any thread; runs of one session take turns, separate sessions run in parallel. A forked
 * child loads its own.
 */
#ifndef GHOSTNETS_ENGINE_H
#define GHOSTNETS_ENGINE_H

#include <stddef.h>

#if defined(_WIN32)
#define GHOSTNETS_API
#else
#define GHOSTNETS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ghostnets_session ghostnets_session;

typedef enum {
    GHOSTNETS_OK = 0,
    GHOSTNETS_BAD_ARGUMENT = 1,
    GHOSTNETS_BAD_FILE = 2,  /* missing, damaged, or of another version */
    GHOSTNETS_NO_MEMORY = 3,
    GHOSTNETS_FAILED = 4     /* anything else, such as threads that cannot be started */
} ghostnets_status;

/* What the latest failed call of this thread complained about; "" before. Valid until the next failed call. */
GHOSTNETS_API const char* ghostnets_last_error(void);

/* Loads a network into *session.
 *   threads    threads that share the work, 1 to 1024; 0 for one a processor
 *   precision  "f32", "bf16" or "int8" (of a calibrated network); NULL for that of the file, f32 where it is "auto"
 *   isa        instruction set, such as "avx2"; NULL for the best that the processor has */
GHOSTNETS_API ghostnets_status ghostnets_load(const char* path, int threads, const char* precision, const char* isa,
                                              ghostnets_session** session);

/* Frees a session after its last run; NULL is allowed. */
GHOSTNETS_API void ghostnets_free(ghostnets_session* session);

typedef struct {
    int channels;    /* of the images */
    int takes_bytes; /* whether uint8 images are normalised by the network; otherwise they must be float */
    int outputs;     /* 1, a vector for each image; or the maps of a backbone */
    int gives_maps;
    int threads;
    const char* precision;
    const char* isa;
} ghostnets_info;

GHOSTNETS_API ghostnets_status ghostnets_query(const ghostnets_session* session, ghostnets_info* info);

/* A text that the file holds beside the network, NULL if there is none: "ghostnets_artefact" is the JSON with class names
 * and preprocessing that `ghostnets export` wrote. Valid until the session is freed. */
GHOSTNETS_API const char* ghostnets_metadata(const ghostnets_session* session, const char* key);

/* Images in one array, without gaps. */
typedef struct {
    const void* data;
    int are_bytes; /* 1: uint8 [count][height][width][channels]; 0: float [count][channels][height][width], normalised */
    int count, height, width; /* at least 1 */
} ghostnets_images;

/* Shape of an output for such images, of which `data` is not read: [count][channels][height][width], height and width 1
 * for a vector. */
GHOSTNETS_API ghostnets_status ghostnets_output_shape(ghostnets_session* session, int output,
                                                      const ghostnets_images* images, int shape[4]);

/* Runs the network. outputs[i] is an array of sizes[i] floats, the product of its shape. */
GHOSTNETS_API ghostnets_status ghostnets_run(ghostnets_session* session, const ghostnets_images* images,
                                             float* const* outputs, const size_t* sizes);

typedef struct {
    const char* name;    /* of the module in the network; "" for the time between shares of work */
    const char* kind;    /* "ghost", "conv", ..., "waiting" */
    double macs;         /* multiply-adds */
    double weight_bytes; /* as packed */
    double map_bytes;    /* read and written */
    double seconds;      /* mean over the threads */
} ghostnets_layer;

/* As ghostnets_run, once, and calls on_layer(context, layer) for each layer in order. */
GHOSTNETS_API ghostnets_status ghostnets_profile(ghostnets_session* session, const ghostnets_images* images,
                                                 float* const* outputs, const size_t* sizes,
                                                 void (*on_layer)(void* context, const ghostnets_layer* layer),
                                                 void* context);

#ifdef __cplusplus
}
#endif

#endif

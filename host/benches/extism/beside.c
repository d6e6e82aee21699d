/* Runs an Extism plug-in as `end_to_end` runs a component: creates an instance, calls `handle` once, and drops the instance.
 * The library has no header; these are the declarations of its C API that are used here.
 *
 * beside PLUGIN EVENT: for every line on standard input, a time in milliseconds, repeats this for that time, and prints the
 * nanoseconds of one repetition. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct ExtismFunction ExtismFunction;
typedef struct ExtismCompiledPlugin ExtismCompiledPlugin;
typedef struct ExtismPlugin ExtismPlugin;
typedef struct ExtismCurrentPlugin ExtismCurrentPlugin;
typedef enum { EXTISM_I32, EXTISM_I64 } ExtismValType;
typedef struct {
  ExtismValType t;
  union { int32_t i32; int64_t i64; float f32; double f64; } v;
} ExtismVal;
typedef void (*ExtismFunctionType)(ExtismCurrentPlugin *, const ExtismVal *, uint64_t, ExtismVal *, uint64_t, void *);

ExtismFunction *extism_function_new(const char *name, const ExtismValType *inputs, uint64_t n_inputs,
                                    const ExtismValType *outputs, uint64_t n_outputs, ExtismFunctionType function,
                                    void *data, void (*free_data)(void *));
ExtismCompiledPlugin *extism_compiled_plugin_new(const uint8_t *wasm, uint64_t size, const ExtismFunction **functions,
                                                 uint64_t n_functions, bool with_wasi, char **error);
ExtismPlugin *extism_plugin_new_from_compiled(const ExtismCompiledPlugin *compiled, char **error);
int32_t extism_plugin_call(ExtismPlugin *plugin, const char *function, const uint8_t *data, uint64_t size);
const char *extism_plugin_error(ExtismPlugin *plugin);
void extism_plugin_free(ExtismPlugin *plugin);
uint8_t *extism_current_plugin_memory(ExtismCurrentPlugin *plugin);
uint64_t extism_current_plugin_memory_alloc(ExtismCurrentPlugin *plugin, uint64_t size);

#define PASSAGE                                                                                              \
  "{\"id\":\"cont_travel_policy\",\"chunkId\":\"chunk_1\",\"text\":\"Flights of up to six hours are booked in economy " \
  "class. Above six hours business class may be booked if the line manager has agreed to it in writing before.\","      \
  "\"title\":\"Travel policy\",\"key\":\"travel-policy.md\",\"order\":0}"

/* The constant answers of the platform, the same as in `platform.rs`. */
static const char *const ANSWERS[4][2] = {
    {"create_step", "\"log_qwk3x8y0c5u7r1d2e9f4g6h0\""},
    {"search", "[" PASSAGE "," PASSAGE "," PASSAGE "]"},
    {"complete", "{\"text\":\"You may book a flight in economy class, and in business class above six hours "
                 "[source0].\",\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":400,\"completionTokens\":20}}"},
    {"reply", "{\"id\":\"msg_2\",\"role\":\"ASSISTANT\"}"},
};

static void answer(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, uint64_t n_inputs, ExtismVal *outputs,
                   uint64_t n_outputs, void *data) {
  (void)inputs, (void)n_inputs, (void)n_outputs;
  size_t size = strlen(data);
  uint64_t place = extism_current_plugin_memory_alloc(plugin, size);
  memcpy(extism_current_plugin_memory(plugin) + place, data, size);
  outputs[0].t = EXTISM_I64;
  outputs[0].v.i64 = (int64_t)place;
}

static uint8_t *read_file(const char *path, uint64_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) return NULL;
  *size = (uint64_t)ftell(file);
  rewind(file);
  uint8_t *bytes = malloc(*size);
  if (bytes && fread(bytes, 1, *size, file) != *size) return NULL;
  fclose(file);
  return bytes;
}

static void deliver(const ExtismCompiledPlugin *compiled, const uint8_t *event, uint64_t size) {
  char *error = NULL;
  ExtismPlugin *plugin = extism_plugin_new_from_compiled(compiled, &error);
  if (!plugin) {
    fprintf(stderr, "no instance: %s\n", error);
    exit(1);
  }
  if (extism_plugin_call(plugin, "handle", event, size)) {
    fprintf(stderr, "the call failed: %s\n", extism_plugin_error(plugin));
    exit(1);
  }
  extism_plugin_free(plugin);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

int main(int argc, char **argv) {
  uint64_t wasm_size, event_size;
  uint8_t *wasm = argc == 3 ? read_file(argv[1], &wasm_size) : NULL;
  uint8_t *event = argc == 3 ? read_file(argv[2], &event_size) : NULL;
  if (!wasm || !event) {
    fprintf(stderr, "usage: beside PLUGIN EVENT\n");
    return 2;
  }
  const ExtismFunction *functions[4];
  ExtismValType text = EXTISM_I64;
  for (int i = 0; i < 4; i++)
    functions[i] = extism_function_new(ANSWERS[i][0], &text, 1, &text, 1, answer, (void *)ANSWERS[i][1], NULL);
  char *error = NULL;
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new(wasm, wasm_size, functions, 4, true, &error);
  if (!compiled) {
    fprintf(stderr, "the plug-in can't be compiled: %s\n", error);
    return 1;
  }
  char line[32];
  while (fgets(line, sizeof line, stdin)) {
    int64_t started = now(), until = started + atoll(line) * 1000000, done = 0;
    for (; now() < until; done += 16)
      for (int i = 0; i < 16; i++) deliver(compiled, event, event_size);
    printf("%lld\n", (long long)((now() - started) / done));
    fflush(stdout);
  }
  return 0;
}

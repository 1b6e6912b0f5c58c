/* Runs a SavedModel through TensorFlow's C API, without Python.
 *
 *   run_saved_model MODEL_DIR REQUEST_FILE RESPONSE_FILE
 *
 * The stock TensorFlow Serving stands on the same loader and the same session:
 * it reads the graph tagged "serve", runs its init op and then feeds and
 * fetches tensors by name. An op that exists in Python only fails here too.
 *
 * Both files are little endian, as is the machine. A `text` is a u32 length
 * and as many bytes. A `tensor` is
 *
 *   u32 dtype (TF_DataType), u32 rank, i64 dims[rank], then
 *   strings: for each element a u64 length and the bytes
 *   others:  u64 number of bytes, the bytes
 *
 *   request file:  u32 requests, and for each
 *                    u32 inputs, for each: text name, tensor
 *                    u32 outputs, for each: text name
 *   response file: for each request its output tensors, in that order
 *
 * Names are those of graph tensors, "serving_default_x:0". Exit code 1 and
 * "run_saved_model: error: MESSAGE" on stderr where TensorFlow reports an
 * error, or a file is not as above.
 *
 * tests/c_runner.py builds it, writes requests and reads responses.
 */

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tensorflow/c/c_api.h>
#include <tensorflow/c/tf_tstring.h>

#define MAX_TENSORS 64
#define MAX_RANK 16
#define MAX_NAME 1024

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("run_saved_model: error: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static void check(const TF_Status *status) {
  if (TF_GetCode(status) != TF_OK) fail("%s", TF_Message(status));
}

static void *allocate(size_t size) {
  void *data = malloc(size ? size : 1);
  if (!data) fail("no memory for %zu bytes", size);
  return data;
}

static FILE *open_file(const char *path, const char *mode) {
  FILE *file = fopen(path, mode);
  if (!file) fail("cannot open %s", path);
  return file;
}

static void read_bytes(FILE *file, void *data, size_t size) {
  if (size && fread(data, 1, size, file) != size)
    fail("the request file ends too early");
}

static uint32_t read_u32(FILE *file) {
  uint32_t value;
  read_bytes(file, &value, sizeof value);
  return value;
}

static uint64_t read_u64(FILE *file) {
  uint64_t value;
  read_bytes(file, &value, sizeof value);
  return value;
}

/* A count that has room in an array of `limit`. */
static int read_count(FILE *file, uint32_t limit, const char *what) {
  uint32_t count = read_u32(file);
  if (count > limit)
    fail("expected at most %u %s, found %u", limit, what, count);
  return (int)count;
}

static void write_bytes(FILE *file, const void *data, size_t size) {
  if (size && fwrite(data, 1, size, file) != size)
    fail("cannot write the response file");
}

static void write_u32(FILE *file, uint32_t value) {
  write_bytes(file, &value, sizeof value);
}

static void write_u64(FILE *file, uint64_t value) {
  write_bytes(file, &value, sizeof value);
}

/* The graph tensor that the file names next: "operation:index". */
static TF_Output read_name(FILE *file, TF_Graph *graph) {
  char name[MAX_NAME];
  int length = read_count(file, MAX_NAME - 1, "bytes of a name");
  read_bytes(file, name, (size_t)length);
  name[length] = 0;
  char *colon = strrchr(name, ':');
  if (!colon) fail("expected operation:index, found %s", name);
  *colon = 0;
  TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!output.oper) fail("the graph has no operation %s", name);
  return output;
}

static TF_Tensor *read_tensor(FILE *file) {
  TF_DataType dtype = (TF_DataType)read_u32(file);
  int rank = read_count(file, MAX_RANK, "axes");
  int64_t dims[MAX_RANK];
  read_bytes(file, dims, (size_t)rank * sizeof *dims);
  int64_t count = 1;
  for (int axis = 0; axis < rank; axis++) count *= dims[axis];

  if (dtype != TF_STRING) {
    size_t size = read_u64(file);
    TF_Tensor *tensor = TF_AllocateTensor(dtype, dims, rank, size);
    if (!tensor) fail("cannot make a tensor of %zu bytes", size);
    read_bytes(file, TF_TensorData(tensor), size);
    return tensor;
  }
  size_t size = (size_t)count * sizeof(TF_TString);
  TF_Tensor *tensor = TF_AllocateTensor(dtype, dims, rank, size);
  if (!tensor) fail("cannot make a tensor of %zu bytes", size);
  TF_TString *strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) {
    size_t length = read_u64(file);
    char *bytes = allocate(length);
    read_bytes(file, bytes, length);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], bytes, length);
    free(bytes);
  }
  return tensor;
}

static void write_tensor(FILE *file, const TF_Tensor *tensor) {
  write_u32(file, TF_TensorType(tensor));
  write_u32(file, (uint32_t)TF_NumDims(tensor));
  for (int axis = 0; axis < TF_NumDims(tensor); axis++)
    write_u64(file, (uint64_t)TF_Dim(tensor, axis));

  if (TF_TensorType(tensor) != TF_STRING) {
    write_u64(file, TF_TensorByteSize(tensor));
    write_bytes(file, TF_TensorData(tensor), TF_TensorByteSize(tensor));
    return;
  }
  const TF_TString *strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < TF_TensorElementCount(tensor); i++) {
    write_u64(file, TF_StringGetSize(&strings[i]));
    write_bytes(file, TF_StringGetDataPointer(&strings[i]),
                TF_StringGetSize(&strings[i]));
  }
}

/* An input. TensorFlow frees its array, but not the strings that we put in. */
static void delete_input(TF_Tensor *tensor) {
  if (TF_TensorType(tensor) == TF_STRING) {
    TF_TString *strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < TF_TensorElementCount(tensor); i++)
      TF_StringDealloc(&strings[i]);
  }
  TF_DeleteTensor(tensor);
}

static void serve(FILE *requests, FILE *responses, TF_Session *session,
                  TF_Graph *graph, TF_Status *status) {
  TF_Output input_names[MAX_TENSORS], output_names[MAX_TENSORS];
  TF_Tensor *inputs[MAX_TENSORS], *outputs[MAX_TENSORS];

  int num_inputs = read_count(requests, MAX_TENSORS, "inputs");
  for (int i = 0; i < num_inputs; i++) {
    input_names[i] = read_name(requests, graph);
    inputs[i] = read_tensor(requests);
  }
  int num_outputs = read_count(requests, MAX_TENSORS, "outputs");
  for (int i = 0; i < num_outputs; i++)
    output_names[i] = read_name(requests, graph);

  TF_SessionRun(session, NULL, input_names, inputs, num_inputs, output_names,
                outputs, num_outputs, NULL, 0, NULL, status);
  check(status);
  for (int i = 0; i < num_outputs; i++) {
    write_tensor(responses, outputs[i]);
    TF_DeleteTensor(outputs[i]);
  }
  for (int i = 0; i < num_inputs; i++) delete_input(inputs[i]);
}

int main(int argc, char **argv) {
  if (argc != 4)
    fail("expected MODEL_DIR REQUEST_FILE RESPONSE_FILE, found %d arguments",
         argc - 1);
  FILE *requests = open_file(argv[2], "rb");
  FILE *responses = open_file(argv[3], "wb");

  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(
      options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status);

  uint32_t num_requests = read_u32(requests);
  for (uint32_t i = 0; i < num_requests; i++)
    serve(requests, responses, session, graph, status);

  TF_CloseSession(session, status);
  check(status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  fclose(requests);
  if (fclose(responses)) fail("cannot write %s", argv[3]);
  return 0;
}

// A CUDA runtime with one device that computes nothing, to be loaded before the real one.
//
// PyTorch then believes in a GPU. With FakeTensorMode, whose tensors have shapes and devices but no
// data, whole updates run on `cuda:0`, and every operation and copy can be looked at. Streams and
// events are empty: every wait is over at once. Pinned memory is memory.

// Its arguments differ between versions of CUDA; only the first two are used here.
#define cudaStreamGetCaptureInfo declared_by_the_header
#include <cuda_runtime_api.h>
#undef cudaStreamGetCaptureInfo
#undef cudaGetDeviceProperties
#include <stdlib.h>
#include <string.h>

#define GIBIBYTES ((size_t)80 << 30)
#define DOES_NOTHING(name, ...) \
    cudaError_t name(__VA_ARGS__) { return cudaSuccess; }
#define GIVES(name, value, ...)    \
    cudaError_t name(__VA_ARGS__)  \
    {                              \
        *out = value;              \
        return cudaSuccess;        \
    }

// Handles are never looked into, so any address will do.
static char somewhere;

GIVES(cudaGetDeviceCount, 1, int *out)
GIVES(cudaGetDevice, 0, int *out)
GIVES(cudaDriverGetVersion, CUDART_VERSION, int *out)
GIVES(cudaRuntimeGetVersion, CUDART_VERSION, int *out)
GIVES(cudaDeviceCanAccessPeer, 0, int *out, int device, int peer)
DOES_NOTHING(cudaSetDevice, int device)
DOES_NOTHING(cudaDeviceSynchronize, void)
DOES_NOTHING(cudaGetLastError, void)
DOES_NOTHING(cudaPeekAtLastError, void)

GIVES(cudaStreamCreateWithPriority, (cudaStream_t)&somewhere, cudaStream_t *out, unsigned flags, int priority)
GIVES(cudaStreamCreateWithFlags, (cudaStream_t)&somewhere, cudaStream_t *out, unsigned flags)
GIVES(cudaStreamGetCaptureInfo, cudaStreamCaptureStatusNone, cudaStream_t stream, enum cudaStreamCaptureStatus *out)
GIVES(cudaStreamIsCapturing, cudaStreamCaptureStatusNone, cudaStream_t stream, enum cudaStreamCaptureStatus *out)
DOES_NOTHING(cudaThreadExchangeStreamCaptureMode, enum cudaStreamCaptureMode *mode)
DOES_NOTHING(cudaStreamSynchronize, cudaStream_t stream)
DOES_NOTHING(cudaStreamQuery, cudaStream_t stream)
DOES_NOTHING(cudaStreamWaitEvent, cudaStream_t stream, cudaEvent_t event, unsigned flags)

GIVES(cudaEventCreateWithFlags, (cudaEvent_t)&somewhere, cudaEvent_t *out, unsigned flags)
DOES_NOTHING(cudaEventDestroy, cudaEvent_t event)
DOES_NOTHING(cudaEventRecord, cudaEvent_t event, cudaStream_t stream)
DOES_NOTHING(cudaEventRecordWithFlags, cudaEvent_t event, cudaStream_t stream, unsigned flags)
DOES_NOTHING(cudaEventQuery, cudaEvent_t event)
DOES_NOTHING(cudaEventSynchronize, cudaEvent_t event)

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -1;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *unused, size_t *total)
{
    *unused = *total = GIBIBYTES;
    return cudaSuccess;
}

// Compute capability 9.0, as of an H100: PyTorch then offers bfloat16 and fused kernels.
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "no GPU at all");
    properties->major = 9;
    properties->totalGlobalMem = GIBIBYTES;
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerMultiProcessor = 2048;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : attribute != cudaDevAttrComputeCapabilityMinor;
    return cudaSuccess;
}

#define MOST_PINNED 1024
static char *pinned[MOST_PINNED];
static size_t pinned_size[MOST_PINNED];

cudaError_t cudaHostAlloc(void **memory, size_t size, unsigned flags)
{
    for (int i = 0; i < MOST_PINNED; i++)
        if (!pinned[i]) {
            *memory = pinned[i] = malloc(size);
            pinned_size[i] = size;
            return cudaSuccess;
        }
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    for (int i = 0; i < MOST_PINNED; i++)
        if (pinned[i] == memory)
            pinned[i] = NULL;
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
    const char *place = pointer;
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeUnregistered;
    for (int i = 0; i < MOST_PINNED; i++)
        if (pinned[i] && pinned[i] <= place && place < pinned[i] + pinned_size[i])
            attributes->type = cudaMemoryTypeHost;
    return cudaSuccess;
}

// The driver is asked whether the device already has a context. It has.
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active)
{
    *flags = 0;
    *active = 1;
    return 0;
}

static int other_driver_call(void) { return 0; }

cudaError_t cudaGetDriverEntryPointByVersion(
    const char *name, void **function, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *found)
{
    int asks_for_context = !strcmp(name, "cuDevicePrimaryCtxGetState");
    *function = asks_for_context ? (void *)cuDevicePrimaryCtxGetState : (void *)other_driver_call;
    if (found)
        *found = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

/* Reductions over the threads of a block, whose number is a power of two; always in one order. */

RNN_DEVICE real rnn_block_sum(real value, real *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    const real total = shared[0];
    __syncthreads();
    return total;
}

RNN_DEVICE real rnn_block_max(real value, real *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] = rnn_maximum(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    const real largest = shared[0];
    __syncthreads();
    return largest;
}

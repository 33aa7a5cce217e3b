#!/usr/bin/env bash
# `littoral bench split` beside llama.cpp's RPC backend, alternately, on this machine.
#   bench/peers/llama_cpp_rpc.sh LLAMA_CPP_SOURCE MODEL [TURNS]
# Needs cmake and a C++ compiler; the source is that of llama.cpp, or vendor/llama.cpp of llama-cpp-python's source package.
set -euo pipefail
source=$1 model=$2 turns=${3:-3}
littoral=${LITTORAL:-target/release/littoral}
built=${LLAMA_CPP_BUILD:-target/llama-cpp-rpc}
servers=()
trap '((${#servers[@]})) && kill "${servers[@]}"' EXIT

cmake -S "$source" -B "$built" -DCMAKE_BUILD_TYPE=Release -DGGML_RPC=ON -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >&2
cmake --build "$built" --target rpc-server llama-bench -j "$(nproc)" >&2

rpc() {
  local places=()
  for port in $(seq 50061 $((50060 + $1))); do
    "$built/bin/rpc-server" -H 127.0.0.1 -p "$port" -t "$(nproc)" >&2 &
    servers+=($!)
    places+=("127.0.0.1:$port")
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  done
  "$built/bin/llama-bench" -m "$model" --rpc "$(IFS=,; echo "${places[*]}")" -ngl 99 -p 0 -n 128 -r 3 -t "$(nproc)" -o jsonl
  kill "${servers[@]}"
  wait "${servers[@]}" || true
  servers=()
}

for _ in $(seq "$turns"); do
  for stages in 2 3; do
    "$littoral" --json bench split --model "$model" --stages "$stages" --repeats 1
    rpc "$stages"
  done
done

// The walker: sees every op below autograd, on unpatched torch, and records or runs it.
//
// It must be C++ because only C++ can make a tensor whose storage has no memory yet, because ops
// arrive from threads without Python, and because an op is recorded in the time in which Python
// looks up a name.
//
// How ops get here: keys.h, claim.h, typed.h. What becomes of them: see.h. What is recorded, and
// how: trie.h (places), trace.h (traces), recorder.h (the long way), expect.h (the short one). How
// a flush runs: finish.h, execute.h, interpret.h. What Python calls: calls.h, api.h, hooks.h. Built
// on first use by native.py, without Python's headers.
#include "api.h"

TORCH_LIBRARY_IMPL(_, PrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::see_unclaimed>());
}
TORCH_LIBRARY_IMPL(_, SparsePrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, SparseCsrPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, NestedTensorPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, QuantizedPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
// Ops without a gradient formula. The CPU's own fallback goes straight on to the CPU's kernel.
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}

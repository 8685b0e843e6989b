// The first header that torch-sys includes. The compiler gets here only where no folder of libtorch holds it: this one is
// searched after all folders that are given on the command line.
#if __has_include_next(<torch/torch.h>)
#include_next <torch/torch.h>
#else
#error "libtorch is missing. Run `cargo xtask setup`, or point LIBTORCH at a libtorch 2.11.0 of your own; `cargo xtask doctor` tells more."
// A missing file ends the compilation at once, where #error would let thousands of follow-up errors bury the line above.
#include <run `cargo xtask setup`>
#endif

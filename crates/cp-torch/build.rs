//! Passes the folder of libtorch on: to the run path of this crate's own tests, and, as `DEP_POLYAD_TORCH_LIBTORCH_LIB`,
//! to the build scripts of the crates that link against this one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Absent in a `doc-only` build, which links nothing.
    if let Ok(dir) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:libtorch_lib={dir}");
        // The old tag (RPATH) also serves the libraries that libtorch itself opens.
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{dir}");
    }
}

//! Puts the folder of libtorch into the run path, so that binaries start with no environment variable, and into the program the commit that
//! it is built from.

#[path = "../cp-train/commit.rs"]
mod commit;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(dir) = std::env::var("DEP_POLYAD_TORCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{dir}");
    }
    commit::tell();
}

//! What the linker, which generates the code, is told about the kernel's machine.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("bpf") {
        // 32-bit registers and jumps: kernel 5.1. Headers lie unaligned in a frame; the
        // machines that netpold runs on read them whole, where the default is byte by byte.
        println!("cargo:rustc-link-arg-bins=--cpu-features=+alu32,+allows-misaligned-mem-access");
    }
}

//! What the linker, which generates the code, is told about the kernel's machine.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("bpf") {
        // Headers lie unaligned in a frame; the machines that netpold runs on read them
        // whole, where the default is byte by byte. `+alu32` must not stand here: functions
        // carry the generic CPU, and the mixture compares 32-bit values sign-extended
        // (`u32::MAX` never equals itself; tests/tests/packets.rs sees it).
        println!("cargo:rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}

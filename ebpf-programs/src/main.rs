//! The two TC programs of a container's interface, on the host's end of its veth.
//!
//! ```text
//!  container ──▶ veth ──▶ [TC ingress hook] netpold_egress   ──▶ bridge, host
//!  container ◀── veth ◀── [TC egress hook]  netpold_ingress  ◀── bridge, host
//! ```
//!
//! On an interface that has no end on the host (macvlan, ipvlan) they are inside the container, where
//! the hooks are the other way round:
//!
//! ```text
//!  container ──▶ [TC egress hook]  netpold_egress  ──▶ eth0 ──▶ parent
//!  container ◀── [TC ingress hook] netpold_ingress ◀── eth0 ◀── parent
//! ```
//!
//! The names are the endpoint's own view, as in the API. What is allowed returns
//! `TC_ACT_UNSPEC`, so that other programs on the interface still have their say.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code, missing_docs))]
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics),
    allow(internal_features)
)]

#[cfg(target_arch = "bpf")]
mod constants;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod subprograms;

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program runs in the kernel; daemon/build.rs builds it");
}

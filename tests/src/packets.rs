//! The packet corpus: files of packets with their whole expected effect (`tests/packets`), run
//! through the model and through the loaded programs.
//!
//! ```text
//!  NAME.pkt ─▶ script ─▶ frame (a line's bytes)     ┌─▶ executor: model ──┐
//!               │                                   │                     ├─▶ state, effect
//!               └─────▶ scene (worlds) ─▶ plan ─▶ run ─▶ loaded: kernel ──┘     │
//!                                                   ▲                           ▼
//!                                                   └──── the file's lines ◀── the same lines
//! ```
//!
//! Nothing here decides what is right: the files do, and both executors must agree with them and
//! with each other.

pub mod effect;
pub mod executor;
pub mod frame;
pub mod loaded;
pub mod names;
pub mod run;
pub mod scene;
pub mod script;
pub mod state;

//! What the fuzz targets hold, as plain functions over bytes. Tests include the files of this
//! folder and replay `finds/` through them, without a fuzzer; the streams of events are beside
//! what they drive, in the daemon.

pub mod datapath;
pub mod labels;
pub mod manifest;
pub mod packet;
mod support;

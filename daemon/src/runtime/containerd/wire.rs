//! containerd's messages, as far as they are used: a field that is not declared is skipped.
//!
//! Declared by hand after `api/` of containerd 1.6 to 2.x, in which these fields have the same
//! numbers; nothing but `client` sends them.

use std::collections::BTreeMap;

/// `google.protobuf.Empty`, and every request that asks for all.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Everything {}

/// `google.protobuf.Timestamp`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `containerd.services.version.v1.VersionResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Version {
    #[prost(string, tag = "1")]
    pub version: String,
}

/// `containerd.services.namespaces.v1.ListNamespacesResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespaces {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<Namespace>,
}

/// `containerd.services.namespaces.v1.Namespace`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespace {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `containerd.services.containers.v1.ListContainerMessage`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Listed {
    #[prost(message, optional, tag = "1")]
    pub container: Option<Container>,
}

/// `containerd.services.containers.v1.Container`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub created_at: Option<Timestamp>,
}

/// `containerd.services.tasks.v1.ListTasksResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tasks {
    #[prost(message, repeated, tag = "1")]
    pub tasks: Vec<Process>,
}

/// `containerd.services.tasks.v1.GetRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetTask {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// `containerd.services.tasks.v1.GetResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
}

/// `containerd.v1.types.Process`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Process {
    /// The container's; empty in answers of containerd 1.x.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Of a container's first process, the container's as well.
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// One of [`status`]; a number, as there may be more of them some day.
    #[prost(int32, tag = "4")]
    pub status: i32,
}

/// `containerd.v1.types.Status`
pub mod status {
    pub const CREATED: i32 = 1;
    pub const RUNNING: i32 = 2;
    pub const STOPPED: i32 = 3;
    pub const PAUSED: i32 = 4;
    pub const PAUSING: i32 = 5;
}

/// `containerd.services.events.v1.SubscribeRequest`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Subscribe {
    /// An event that passes one of them is sent.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `containerd.types.Envelope`, of 1.x `containerd.services.events.v1.Envelope`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// `containerd.events.TaskExit`
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskExit {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Of the process: another one where it was not the container's first.
    #[prost(string, tag = "2")]
    pub id: String,
}

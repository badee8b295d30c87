//! Servers of this machine's own, for the demo, the tests and a pipeline without a cloud: a
//! private Postgres and an S3 server on a folder.

pub mod http;
pub mod postgres;
pub mod s3;
pub mod totesys;

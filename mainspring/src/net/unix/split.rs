//! The halves of a Unix connection.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;

use super::{SocketAddr, UnixStream};

crate::net::stream::halves!(UnixStream);

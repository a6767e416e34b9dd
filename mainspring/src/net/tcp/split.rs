//! The halves of a TCP connection.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use super::TcpStream;

crate::net::stream::halves!(TcpStream);

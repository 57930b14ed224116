//! Who is at the other end of the connection.

use std::net::{IpAddr, SocketAddr};

use ::http::Extensions;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a connection comes from an address or from this machine")]
pub enum Peer {
    /// An address of the network.
    Ip(IpAddr),
    /// A socket of this machine that has no address.
    Local,
}

/// Tells the limit who is at the other end, where no framework does: put it into the request's extensions.
///
/// axum tells it by `into_make_service_with_connect_info::<SocketAddr>()` (feature `axum`), tonic on its own (feature
/// `tonic`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a plain value for users to make")]
pub struct PeerAddr(pub Peer);

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        Self(Peer::Ip(address.ip()))
    }
}

/// What the server put into the request. `None`: nothing, which is a mistake of its set-up.
pub(super) fn peer_of(extensions: &Extensions) -> Option<Peer> {
    if let Some(PeerAddr(peer)) = extensions.get() {
        return Some(*peer);
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) =
        extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(Peer::Ip(address.ip()));
    }
    #[cfg(feature = "tonic")]
    {
        use tonic::transport::server::TcpConnectInfo;
        if let Some(info) = extensions.get::<TcpConnectInfo>() {
            return info.remote_addr().map(|address| Peer::Ip(address.ip()));
        }
        #[cfg(unix)]
        if extensions.get::<tonic::transport::server::UdsConnectInfo>().is_some() {
            return Some(Peer::Local);
        }
    }
    None
}

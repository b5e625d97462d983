//! What a container of the first-packet suite runs: its first instructions send, to a group on
//! its network, which asks for no MAC address before, and to one peer; then it dials that peer until
//! it is ended.
//!
//! usage: first_packet_sender GROUP PEER PORT

use std::env;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long it sends without a pause, and how often at least.
const EAGER: Duration = Duration::from_millis(200);
const OFTEN: u32 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or("GROUP PEER PORT");
    let (group, peer): (IpAddr, IpAddr) = (next()?.parse()?, next()?.parse()?);
    let port: u16 = next()?.parse()?;
    let (begun, mut sent) = (Instant::now(), 0);
    while begun.elapsed() < EAGER || sent < OFTEN {
        sent += 1;
        for to in [group, peer] {
            // Without room, without an answer about the MAC address, refused: again.
            let _ = socket.send_to(b"first", (to, port));
        }
    }
    loop {
        let _ = TcpStream::connect_timeout(&SocketAddr::new(peer, port), Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(50));
    }
}

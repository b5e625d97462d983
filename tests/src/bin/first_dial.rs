//! What a container of the first-connection suite runs: its first instructions open a connection. Prints the milliseconds
//! that this took, and what was answered.
//!
//! usage: first_dial ADDRESS PORT

use std::env;
use std::io::Read as _;
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().ok_or("ADDRESS PORT");
    let (address, port): (IpAddr, u16) = (next()?.parse()?, next()?.parse()?);
    let begun = Instant::now();
    let mut stream = TcpStream::connect((address, port))?;
    let took = begun.elapsed();
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{} {answer}", took.as_millis());
    Ok(())
}

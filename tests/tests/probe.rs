//! Probes over a bridge without policy: what a namespace lets through arrives, and
//! what it drops does not. Needs root.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use netpold_tests::{Lab, residue};

fn lab() -> Result<Lab> {
    let mut lab = Lab::new()?;
    for (name, v4, v6) in [
        ("web/a", "10.77.1.1/16", "fd77::11/64"),
        ("web/b", "10.77.1.2/16", "fd77::12/64"),
    ] {
        lab.add_pod(name, &[v4.parse()?, v6.parse()?])?;
    }
    Ok(lab)
}

fn probe(lab: &Lab, family: usize, protocol: Protocol, port: u16) -> Result<Probe> {
    let (from, to) = (lab.pod("web/a")?, lab.pod("web/b")?);
    Ok(Probe {
        from: from.namespace.path(),
        source: from.addresses[family],
        to: Some(to.namespace.path()),
        destination: SocketAddr::new(to.addresses[family], port),
        protocol,
        timeout: Duration::from_millis(600),
    })
}

#[test]
fn every_protocol_arrives_in_both_families() -> Result<()> {
    let lab = lab()?;
    for family in [0, 1] {
        for protocol in Protocol::ALL {
            let outcome = probe(&lab, family, protocol, 8080)?.run()?;
            ensure!(
                outcome == Outcome::Reached,
                "{family} {protocol}: {outcome:?}"
            );
        }
    }
    let name = lab.name.clone();
    ensure!(residue::check(&name).is_err(), "the check sees no lab");
    drop(lab);
    residue::check(&name)
}

#[test]
fn a_port_that_a_service_has_is_probed_beside_it() -> Result<()> {
    let lab = lab()?;
    let to = lab.pod("web/b")?;
    let address: IpAddr = to.addresses[0];
    let services = netns::inside(&to.namespace.path(), || {
        Ok::<_, std::io::Error>((
            TcpListener::bind((address, 53))?,
            UdpSocket::bind((address, 53))?,
        ))
    })??;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let outcome = probe(&lab, 0, protocol, 53)?.run()?;
        ensure!(outcome == Outcome::Reached, "{protocol}: {outcome:?}");
    }
    drop(services);
    Ok(())
}

#[test]
fn what_is_dropped_on_the_way_times_out() -> Result<()> {
    let lab = lab()?;
    // The neighbour is known and the port is shut: frames leave and go nowhere.
    let (from, to) = (lab.pod("web/a")?, lab.pod("web/b")?);
    for address in &to.addresses {
        from.namespace.ip(&[
            "neigh",
            "replace",
            &address.to_string(),
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            "eth0",
        ])?;
    }
    lab.host()
        .ip(&["link", "set", &to.host_interface, "nomaster"])?;
    for family in [0, 1] {
        for protocol in Protocol::ALL {
            let outcome = probe(&lab, family, protocol, 8080)?.run()?;
            ensure!(
                outcome == Outcome::TimedOut,
                "{family} {protocol}: {outcome:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn no_route_is_neither_reached_nor_denied() -> Result<()> {
    let lab = lab()?;
    let from = lab.pod("web/a")?;
    from.namespace.ip(&["route", "del", "default"])?;
    for protocol in Protocol::ALL {
        let mut probe = probe(&lab, 0, protocol, 80)?;
        probe.destination = SocketAddr::new("192.0.2.1".parse()?, 80);
        // A namespace that does not have the address could not listen on it.
        probe.to = (protocol == Protocol::Sctp).then(|| from.namespace.path());
        let outcome = probe.run()?;
        ensure!(outcome.arrived().is_none(), "{protocol}: {outcome:?}");
    }
    Ok(())
}

//! Sizes and offsets of everything that lies in a pinned map or in the ring. A change here
//! is a change of `limits::LAYOUT_VERSION`: an older daemon's maps would be misread.

use core::mem::{offset_of, size_of};

use netpol_abi::event::Event;
use netpol_abi::limits::LAYOUT_VERSION;
use netpol_abi::link::{LinkRate, Neighbour};
use netpol_abi::tables::{
    Address, Control, Counter, Endpoint, EndpointBank, Flow, FlowKey4, FlowKey6, Fragment,
    FragmentKey, FragmentSet, Interface, Leave, LeaveKey4, LeaveKey6, PortBlock, PortRange, Prefix,
    Published, PublishedBank, PublishedKey, Usage, Verdict, VerdictKey,
};

#[test]
fn layouts_are_those_of_the_version() {
    let sizes = [
        ("Control", size_of::<Control>(), 104),
        ("Interface", size_of::<Interface>(), 20),
        ("EndpointBank", size_of::<EndpointBank>(), 56),
        ("Endpoint", size_of::<Endpoint>(), 136),
        ("Address", size_of::<Address>(), 32),
        ("LeaveKey4", size_of::<LeaveKey4>(), 8),
        ("LeaveKey6", size_of::<LeaveKey6>(), 20),
        ("Leave", size_of::<Leave>(), 8),
        ("PublishedKey", size_of::<PublishedKey>(), 24),
        ("PublishedBank", size_of::<PublishedBank>(), 24),
        ("Published", size_of::<Published>(), 48),
        ("Prefix", size_of::<Prefix>(), 16),
        ("VerdictKey", size_of::<VerdictKey>(), 16),
        ("PortRange", size_of::<PortRange>(), 12),
        ("Verdict", size_of::<Verdict>(), 64),
        ("PortBlock", size_of::<PortBlock>(), 256),
        ("FlowKey4", size_of::<FlowKey4>(), 16),
        ("FlowKey6", size_of::<FlowKey6>(), 40),
        ("Flow", size_of::<Flow>(), 16),
        ("FragmentKey", size_of::<FragmentKey>(), 44),
        ("Fragment", size_of::<Fragment>(), 8),
        ("FragmentSet", size_of::<FragmentSet>(), 832),
        ("LinkRate", size_of::<LinkRate>(), 8),
        ("Neighbour", size_of::<Neighbour>(), 24),
        ("Usage", size_of::<Usage>(), 16),
        ("Counter", size_of::<Counter>(), 16),
        ("Event", size_of::<Event>(), 104),
    ];
    for (name, size, expected) in sizes {
        assert_eq!(
            size, expected,
            "{name}: a new size needs a new LAYOUT_VERSION"
        );
    }
    let offsets = [
        ("Control.flags", offset_of!(Control, flags), 8),
        ("Control.flow_share", offset_of!(Control, flow_share), 16),
        ("Control.layout", offset_of!(Control, layout), 20),
        ("Control.stamp_key", offset_of!(Control, stamp_key), 36),
        ("Control.timeouts", offset_of!(Control, timeouts), 40),
        ("Interface.mac", offset_of!(Interface, mac), 8),
        (
            "EndpointBank.revision",
            offset_of!(EndpointBank, revision),
            16,
        ),
        ("EndpointBank.asks", offset_of!(EndpointBank, asks), 40),
        ("Endpoint.bridges", offset_of!(Endpoint, bridges), 8),
        ("Endpoint.banks", offset_of!(Endpoint, banks), 24),
        ("Address.owner", offset_of!(Address, owner), 16),
        ("Address.slot", offset_of!(Address, slot), 24),
        (
            "PublishedKey.service",
            offset_of!(PublishedKey, service),
            16,
        ),
        ("PublishedBank.id", offset_of!(PublishedBank, id), 16),
        ("PublishedBank.port", offset_of!(PublishedBank, port), 20),
        ("Verdict.spill", offset_of!(Verdict, spill), 8),
        ("Verdict.ranges", offset_of!(Verdict, ranges), 16),
        ("PortBlock.ranges", offset_of!(PortBlock, ranges), 16),
        ("Flow.revision", offset_of!(Flow, revision), 8),
        ("Flow.state", offset_of!(Flow, state), 12),
        ("Flow.payer", offset_of!(Flow, payer), 14),
        ("Event.source", offset_of!(Event, source), 40),
        ("Event.reason", offset_of!(Event, reason), 82),
        ("Event.sender", offset_of!(Event, sender), 100),
    ];
    for (name, offset, expected) in offsets {
        assert_eq!(
            offset, expected,
            "{name}: a new place needs a new LAYOUT_VERSION"
        );
    }
    assert_eq!(
        LAYOUT_VERSION, 5,
        "change the numbers above together with the version"
    );
}

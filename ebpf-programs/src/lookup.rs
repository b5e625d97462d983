//! The look-ups of `netpol_abi::judge` over the maps.
//!
//! The compiler's target for BPF has no atomics, as the first kernels could not compare and
//! swap; adding they could always. Hence the intrinsic.

use core::cell::Cell;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    maps::{HashMap, lpm_trie::Key},
};
use netpol_abi::{
    connection::TICK_SHIFT,
    judge::Tables,
    limits::INTERFACE_SLOTS,
    link::{LinkRate, Neighbour},
    tables::{
        Address, AddressBank, Control, Endpoint, Flow, FlowKey4, FlowKey6, FragmentCursor,
        FragmentSet, Interface, Leave, LeaveKey4, LeaveKey6, PortBlock, Prefix, Published,
        PublishedBank, PublishedKey, SenderAddress, Verdict, VerdictKey,
    },
};

use crate::{constants::now_ns, maps};

/// The maps of this host, while a packet is judged.
pub struct Maps {
    /// The packet, for the subprograms.
    pub skb: *mut __sk_buff,
}

/// A map value that is read and written whole. The memory of an element stays one of its map's for an RCU grace period,
/// and the program runs inside one; but it may be another key's by then ([`unreplaced`]).
#[inline(always)]
pub fn cell<'a, T>(pointer: Option<*mut T>) -> Option<&'a Cell<T>> {
    // SAFETY: the map hands out valid, aligned elements; `Cell` has the layout of `T`.
    pointer.map(|pointer| unsafe { &*pointer.cast::<Cell<T>>() })
}

/// How often an element is read that is replaced meanwhile.
const READS: u32 = 2;

/// What `read` takes of an element of a hash, all of it of the key that `find` looks up.
///
/// The kernel gives the memory of an element that is replaced or deleted to the next one at once, though programs may
/// still read it (since 6.1, kernel/bpf/memalloc.c; before, it waited for them): what is read there may be another key's.
/// So the element is looked up once more after it was read: it is given away only once the key no longer leads to it.
/// The daemon does not bring it back within one run of a program: between two grace periods it goes through the keys twice at
/// most, each time in their order. So an element that is another one each time can't be met; `unread` stands for it.
#[inline(always)]
fn unreplaced<V, R>(
    find: impl Fn() -> Option<*const V>,
    read: impl Fn(*const V) -> R,
    unread: R,
) -> Option<R> {
    let mut element = find()?;
    let mut reads = 0;
    while reads < READS {
        let value = read(element);
        let now = find()?;
        if core::ptr::eq(now, element) {
            return Some(value);
        }
        element = now;
        reads += 1;
    }
    Some(unread)
}

/// What a bank of `ADDRESSES4` or `ADDRESSES6` says of an address.
#[inline(always)]
fn find_bank<K>(table: &HashMap<K, Address>, address: &K, bank: usize) -> Option<AddressBank> {
    unreplaced(
        || table.get_ptr(address),
        |entry| address_bank(entry, bank),
        AddressBank::UNREAD,
    )
}

/// Writes what was found; false: nothing was.
#[inline(always)]
fn store(found: Option<AddressBank>, said: &mut AddressBank) -> bool {
    if let Some(found) = found {
        *said = found;
    }
    found.is_some()
}

/// What a bank of `ADDRESSES4` says of an address; false: nothing. A function of its own, as the next three: those that
/// ask have no stack for it.
#[inline(never)]
fn said_of4(address: &[u8; 4], bank: usize, said: &mut AddressBank) -> bool {
    store(find_bank(&maps::ADDRESSES4, address, bank), said)
}

/// The same of `ADDRESSES6`.
#[inline(never)]
fn said_of6(address: &[u8; 16], bank: usize, said: &mut AddressBank) -> bool {
    store(find_bank(&maps::ADDRESSES6, address, bank), said)
}

/// Stands for no owner: the address is not listed.
const UNLISTED: u64 = u64::MAX;

/// The owner that was found, or [`UNLISTED`]: all in registers, for callers that ask for no more.
#[inline(always)]
fn owner_of(found: Option<AddressBank>) -> u64 {
    AddressBank::owner_if_listed(found).map_or(UNLISTED, u64::from)
}

/// The owner that a bank of `ADDRESSES4` says, or [`UNLISTED`].
#[inline(never)]
fn owner_of4(address: u32, bank: usize) -> u64 {
    owner_of(find_bank(&maps::ADDRESSES4, &address.to_ne_bytes(), bank))
}

/// The same of `ADDRESSES6`.
#[inline(never)]
fn owner_of6(first: u64, second: u64, bank: usize) -> u64 {
    let address: [u8; 16] = zerocopy::transmute!([first, second]);
    owner_of(find_bank(&maps::ADDRESSES6, &address, bank))
}

/// Reads one bank now, and neither earlier nor later.
#[inline(always)]
fn address_bank(entry: *const Address, bank: usize) -> AddressBank {
    let bank = bank & 1;
    // SAFETY: the map's element, valid and aligned; what it holds may change meanwhile, and any bytes are one.
    unsafe {
        AddressBank {
            class: core::ptr::read_volatile(&raw const (*entry).class[bank]),
            owner: core::ptr::read_volatile(&raw const (*entry).owner[bank]),
            slot: core::ptr::read_volatile(&raw const (*entry).slot[bank]),
        }
    }
}

/// The same of a published port.
#[inline(always)]
fn published_bank(entry: *const Published, bank: usize) -> PublishedBank {
    // SAFETY: as above.
    unsafe {
        let bank = &raw const (*entry).banks[bank & 1];
        PublishedBank {
            ingress: core::ptr::read_volatile(&raw const (*bank).ingress),
            audited_ingress: core::ptr::read_volatile(&raw const (*bank).audited_ingress),
            id: core::ptr::read_volatile(&raw const (*bank).id),
            port: core::ptr::read_volatile(&raw const (*bank).port),
            flags: core::ptr::read_volatile(&raw const (*bank).flags),
        }
    }
}

/// Adds to an account, wrapping.
#[inline(always)]
fn add_to_account(account: u32, number: u64) {
    if let Some(entered) = maps::ENTERED.get_ptr_mut(account) {
        // SAFETY: the map's element, valid and aligned, which the programs write no other way.
        // Its old value is not asked for: that takes an instruction of Linux 5.12.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(entered, number);
        }
    }
}

/// The first word of a key in the tries of leaves: all its bits count, and the slot stands in front.
#[inline(always)]
const fn leave_word(bits: u32, slot: u32) -> u64 {
    const { assert!(cfg!(target_endian = "little")) };
    bits as u64 | (slot.to_be() as u64) << 32
}

impl Tables for Maps {
    #[inline(always)]
    fn control(&self) -> Option<&Control> {
        maps::CONTROL.get(0)
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        let direct = maps::INTERFACES.get(ifindex % INTERFACE_SLOTS)?;
        if direct.ifindex == ifindex {
            return Some(direct);
        }
        // SAFETY (here and below): elements are read while the RCU grace period holds them.
        unsafe { maps::INTERFACE_OVERFLOW.get(&ifindex) }
    }

    #[inline(always)]
    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        maps::ENDPOINTS.get(slot)
    }

    #[inline(always)]
    fn address4(&self, address: &[u8; 4], bank: usize) -> Option<AddressBank> {
        let mut bank_of_address = AddressBank::UNREAD;
        said_of4(address, bank, &mut bank_of_address).then_some(bank_of_address)
    }

    #[inline(always)]
    fn address6(&self, address: &[u8; 16], bank: usize) -> Option<AddressBank> {
        let mut bank_of_address = AddressBank::UNREAD;
        said_of6(address, bank, &mut bank_of_address).then_some(bank_of_address)
    }

    #[inline(always)]
    fn owner4(&self, address: &[u8; 4], bank: usize) -> Option<u32> {
        let owner = owner_of4(u32::from_ne_bytes(*address), bank);
        (owner != UNLISTED).then_some(owner as u32)
    }

    #[inline(always)]
    fn owner6(&self, address: &[u8; 16], bank: usize) -> Option<u32> {
        let [first, second]: [u64; 2] = zerocopy::transmute!(*address);
        let owner = owner_of6(first, second, bank);
        (owner != UNLISTED).then_some(owner as u32)
    }

    #[inline(always)]
    fn sender(&self, key: u32) -> Option<&SenderAddress> {
        unsafe { maps::SENDERS.get(&key) }
    }

    #[inline(always)]
    fn prefix4(&self, address: &[u8; 4]) -> Option<&Prefix> {
        maps::PREFIXES4.get(&Key::new(32, *address))
    }

    #[inline(always)]
    fn prefix6(&self, address: &[u8; 16]) -> Option<&Prefix> {
        maps::PREFIXES6.get(&Key::new(128, *address))
    }

    #[inline(always)]
    fn leave4(&self, slot: u32, address: u32) -> Option<&Leave> {
        let words = [leave_word(64, slot), address.to_be().into()];
        // SAFETY: a key is packed, shorter than the words, and any bytes are one. Written by its fields, the
        // compiler puts it together of halves that lie misaligned, which the verifier does not take.
        let key = unsafe { &*(&raw const words).cast::<Key<LeaveKey4>>() };
        maps::LEAVES4.get(key)
    }

    #[inline(always)]
    fn leave6(&self, slot: u32, high: u64, low: u64) -> Option<&Leave> {
        let words = [leave_word(160, slot), high.to_be(), low.to_be()];
        // SAFETY: as above, and as long as the words.
        let key = unsafe { &*(&raw const words).cast::<Key<LeaveKey6>>() };
        maps::LEAVES6.get(key)
    }

    #[inline(always)]
    fn published(
        &self,
        first: u64,
        second: u64,
        service: u32,
        bank: usize,
    ) -> Option<PublishedBank> {
        let key = maps::DIALLED.get_ptr_mut(0)?;
        // SAFETY: the element is this processor's own, and used here alone.
        let key = unsafe { &mut *key };
        *key = [first, second, service.into()];
        let key: &PublishedKey = zerocopy::transmute_ref!(&*key);
        unreplaced(
            || maps::PUBLISHED.get_ptr(key),
            |entry| published_bank(entry, bank),
            PublishedBank::UNREAD,
        )
    }

    #[inline(always)]
    fn verdict(&self, key: &VerdictKey) -> Option<&Verdict> {
        unsafe { maps::VERDICTS.get(key) }
    }

    #[inline(always)]
    fn port_block(&self, id: u64) -> Option<&PortBlock> {
        unsafe { maps::PORT_BLOCKS.get(&id) }
    }

    #[inline(always)]
    fn flow4(&self, key: &FlowKey4) -> Option<&Cell<Flow>> {
        cell(maps::FLOWS4.get_ptr_mut(key))
    }

    #[inline(always)]
    fn flow6(&self, key: &FlowKey6) -> Option<&Cell<Flow>> {
        cell(maps::FLOWS6.get_ptr_mut(key))
    }

    #[inline(always)]
    fn read_flow(&self, cell: &Cell<Flow>) -> Flow {
        let words: *const u64 = cell.as_ptr().cast_const().cast();
        // SAFETY: `Flow` is two aligned words. Volatile, so that each is one instruction that loads it whole.
        let words = unsafe {
            [
                core::ptr::read_volatile(words),
                core::ptr::read_volatile(words.add(1)),
            ]
        };
        zerocopy::transmute!(words)
    }

    #[inline(always)]
    fn write_flow(&self, cell: &Cell<Flow>, flow: Flow) {
        let [used, judged]: [u64; 2] = zerocopy::transmute!(flow);
        let words: *mut u64 = cell.as_ptr().cast();
        // SAFETY: as above, for storing.
        unsafe {
            core::ptr::write_volatile(words, used);
            core::ptr::write_volatile(words.add(1), judged);
        }
    }

    #[inline(always)]
    fn see_flow(&self, cell: &Cell<Flow>, now: u32) {
        // SAFETY: the element is valid and aligned.
        unsafe { core::ptr::write_volatile(&raw mut (*cell.as_ptr()).seen, now) };
    }

    #[inline(always)]
    fn enter4(&self, key: &FlowKey4, flow: &Flow) -> bool {
        maps::FLOWS4.insert(key, flow, BPF_NOEXIST.into()).is_ok()
    }

    #[inline(always)]
    fn enter6(&self, key: &FlowKey6, flow: &Flow) -> bool {
        maps::FLOWS6.insert(key, flow, BPF_NOEXIST.into()).is_ok()
    }

    #[inline(always)]
    fn fragments(&self, set: u32) -> Option<&Cell<FragmentSet>> {
        cell(maps::FRAGMENTS.get_ptr_mut(set))
    }

    #[inline(always)]
    fn fragment_cursor(&self, set: u32) -> Option<&Cell<FragmentCursor>> {
        cell(maps::FRAGMENT_CURSORS.get_ptr_mut(set))
    }

    #[inline(always)]
    fn entered(&self, account: u32) -> u32 {
        maps::ENTERED.get(account).copied().unwrap_or(0) as u32
    }

    #[inline(always)]
    fn enter_account(&self, account: u32) {
        add_to_account(account, 1);
    }

    #[inline(always)]
    fn leave_account(&self, account: u32) {
        add_to_account(account, u64::MAX);
    }

    #[inline(always)]
    fn collected(&self, account: u32) -> u32 {
        maps::COLLECTED.get(account).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn link_rate(&self, index: u32) -> Option<&Cell<LinkRate>> {
        cell(maps::LINK_RATES.get_ptr_mut(index))
    }

    #[inline(always)]
    fn neighbour(&self, index: u32) -> Option<&Cell<Neighbour>> {
        cell(maps::NEIGHBOURS.get_ptr_mut(index))
    }

    #[inline(always)]
    fn tick(&self) -> u32 {
        (now_ns() >> TICK_SHIFT) as u32
    }
}

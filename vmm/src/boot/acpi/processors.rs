//! The processors as devices of the DSDT, where they can come and go: control methods over the registers of
//! `device::processors`.
//!
//! ```text
//!   event 2 ─► \_GPE._E02 ─► \_SB.CPUS.CSCN ─► Notify(\_SB.CPUS.Cnnn, 1 came | 3 is to go)
//!                            guest lets go ─► Cnnn._EJ0 ─► CEJ0      says how it went ─► Cnnn._OST ─► COST
//! ```
//! The selected processor is one register for all, hence the mutex.

use super::dsdt::{CHECK, EJECT_REQUEST};
use super::{aml, numa};
use crate::config::numa::Domain;
use crate::device::processors::{BYTES, CAME, EJECT, EVENT, FIRST, LOOK, STATUS, THERE, TO_GO};
use std::slice::from_ref;

/// `C` and the number, in three hexadecimal digits.
fn named(number: u16) -> [u8; 4] {
    let digit = |shift: u16| b"0123456789ABCDEF"[usize::from(number >> shift & 0xf)];
    [b'C', digit(8), digit(4), digit(0)]
}

/// One entry of the MADT: enabled, whatever that table said at the start.
fn entry(number: u16) -> [u8; 8] {
    [0, 8, number as u8, number as u8, 1, 0, 0, 0]
}

/// Registers, and the mutex that makes several accesses one.
fn registers() -> Vec<u8> {
    let bytes = [(None, 32), (Some(b"CPST"), 8), (Some(b"CCMD"), 8)];
    let words = [(Some(b"CSEL"), 32), (None, 32), (Some(b"CDAT"), 32)];
    let region = aml::region(b"CPRG", FIRST, BYTES as u8);
    let fields = [aml::field(b"CPRG", aml::BYTE, &bytes), aml::field(b"CPRG", aml::DWORD, &words)];
    [region, fields.concat(), aml::mutex(b"CPLK")].concat()
}

fn locked(terms: &[Vec<u8>]) -> Vec<u8> {
    [aml::acquire(b"CPLK"), terms.concat(), aml::release(b"CPLK")].concat()
}

fn select() -> Vec<u8> {
    aml::store(&aml::argument(0), b"CSEL")
}

/// The methods that all processors share.
fn methods(possible: u16) -> Vec<u8> {
    let (zero, one) = (aml::byte(0), aml::byte(1));
    let is = |bit: u8| aml::and(b"CPST", &aml::byte(bit));
    let there = [
        select(),
        aml::store(&zero, &aml::local(0)),
        aml::when(&is(THERE), &[aml::store(&aml::byte(0xf), &aml::local(0))]),
    ];
    let status = aml::method(b"CSTA", 1, &[locked(&there), aml::give(&aml::local(0))]);
    let eject = aml::method(b"CEJ0", 1, &[locked(&[select(), aml::store(&aml::byte(EJECT), b"CPST")])]);
    let say = |command: u8, argument: u8| {
        [aml::store(&aml::byte(command), b"CCMD"), aml::store(&aml::argument(argument), b"CDAT")].concat()
    };
    let told = aml::method(b"COST", 3, &[locked(&[select(), say(EVENT, 1), say(STATUS, 2)])]);
    let notify = (0..possible).map(|number| {
        let is_it = aml::equal(&aml::argument(0), &aml::byte(number as u8));
        aml::when(&is_it, &[aml::notify(&named(number), &aml::argument(1))])
    });
    let notify = aml::method(b"CTFY", 2, &notify.collect::<Vec<_>>());
    let event = |bit: u8, what: u8| {
        let tell = aml::call(b"CTFY", &[b"CDAT".to_vec(), aml::byte(what)]);
        let forget = aml::store(&aml::byte(bit), b"CPST");
        aml::when(&is(bit), &[tell, forget, aml::store(&one, &aml::local(0))])
    };
    let look = [
        aml::store(&zero, &aml::local(0)),
        aml::store(&aml::byte(LOOK), b"CCMD"),
        event(CAME, CHECK),
        event(TO_GO, EJECT_REQUEST),
    ];
    let scan = [aml::store(&one, &aml::local(0)), aml::repeat(&aml::local(0), &look)];
    let scan = aml::method(b"CSCN", 0, &[locked(&scan)]);
    [status, eject, told, notify, scan].concat()
}

fn processor(number: u16, domain: Option<u8>) -> Vec<u8> {
    let this = aml::byte(number as u8);
    let mut terms = vec![aml::name(b"_HID", &aml::string("ACPI0007")), aml::name(b"_UID", &this)];
    // For those that come; of all that are there at the start SRAT has told.
    terms.extend(domain.map(|domain| aml::name(b"_PXM", &aml::byte(domain))));
    terms.extend([
        aml::method(b"_STA", 0, &[aml::give(&aml::call(b"CSTA", from_ref(&this)))]),
        aml::name(b"_MAT", &aml::buffer(&entry(number))),
    ]);
    if number != 0 {
        terms.push(aml::method(b"_EJ0", 1, &[aml::call(b"CEJ0", from_ref(&this))]));
        let said = [this, aml::argument(0), aml::argument(1)];
        terms.push(aml::method(b"_OST", 3, &[aml::call(b"COST", &said)]));
    }
    aml::device(&named(number), &terms)
}

/// The container of all processors that there can be.
pub fn container(possible: u16, domains: &[Domain]) -> Vec<u8> {
    let mut terms = vec![aml::name(b"_HID", &aml::string("ACPI0010")), registers(), methods(possible)];
    terms.extend((0..possible).map(|number| processor(number, numa::domain_of(domains, number))));
    aml::device(b"CPUS", &terms)
}

/// What the guest runs when it is told to look.
pub fn event() -> Vec<u8> {
    aml::method(b"_E02", 0, &[aml::path(&[b"_SB_", b"CPUS", b"CSCN"])])
}

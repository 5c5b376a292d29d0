//! Random numbers, balloon, terminal.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::device::console::Console;
use pilvi_vmm::virtio::balloon::Balloon;
use pilvi_vmm::virtio::console::{Input, Terminal};
use pilvi_vmm::virtio::rng::Rng;
use std::cell::OnceCell;
use std::sync::Arc;

mod rings;

thread_local! {
    static CONSOLE: OnceCell<Arc<Console>> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, data)) = data.split_first() else { return };
    match which % 3 {
        0 => rings::drive(&mut Rng::new(Default::default()), data),
        1 => rings::drive(&mut Balloon::new(Default::default(), true, Default::default()), data),
        _ => CONSOLE.with(|console| {
            let console = console.get_or_init(|| Arc::new(Console::new(tempfile::tempfile().unwrap(), 65_536).unwrap()));
            let input = Arc::new(Input::new().unwrap());
            let mut terminal = Terminal::new(input.clone(), console.clone(), Default::default());
            input.type_in(data);
            rings::drive(&mut terminal, data);
        }),
    }
});

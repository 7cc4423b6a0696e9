//! Imports an interface that no host offers.

wit_bindgen::generate!({
    inline: "
        package test:guest;
        world guest {
            import wharf:host/nothing@0.1.0;
            export wasi:cli/run@0.2.0;
        }
        package wharf:host@0.1.0 { interface nothing { ping: func(); } }
        package wasi:cli@0.2.0 { interface run { run: func() -> result; } }
    ",
    generate_all,
});

struct Guest;
export!(Guest);

impl exports::wasi::cli::run::Guest for Guest {
    fn run() -> Result<(), ()> {
        wharf::host::nothing::ping();
        Ok(())
    }
}

//! An MQTT server that acknowledges everything and keeps nothing: what `weir-sim load` reaches against it is the most it
//! can reach on this machine.
//!
//! ```text
//! cargo run --release -p weir-simulator --example sink
//! ```

#[path = "../tests/support/sink.rs"]
mod sink;

fn main() {
    let sink = sink::Sink::start(sink::Behaviour::default());
    println!("mqtt://{}", sink.address);
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

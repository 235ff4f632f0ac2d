//! The same device on a Raspberry Pi Pico: a serial line on GP0 (sends) and GP1 (receives), 115,200 baud, to be reached at
//! `serial:/dev/ttyUSB0?baud=115200`. The LED is the one on the board, the temperature is the chip's own.

#![no_std]
#![no_main]

#[path = "../../qemu/src/board/stack.rs"]
mod stack;

use core::cell::RefCell;
use core::convert::Infallible;

use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_rp::adc::{self, Adc, Blocking};
use embassy_rp::bind_interrupts;
use embassy_rp::clocks::RoscRng;
use embassy_rp::gpio::{Level, Output};
use embassy_rp::peripherals::UART0;
use embassy_rp::uart::{self, BufferedInterruptHandler, BufferedUart, BufferedUartRx};
use farref_device::{Client, Device, DeviceConnection, DeviceMemory, Hardware, Memory, Served};
use farref_embassy::{Config, Endpoint, LineBuffers, LineConfig, Uuid, line_buffer};
use panic_halt as _;
use portable_atomic as _;
use static_cell::{ConstStaticCell, StaticCell};

bind_interrupts!(struct Interrupts {
    UART0_IRQ => BufferedInterruptHandler<UART0>;
});

type Line = LineBuffers<64, { line_buffer(512) }>;

#[embassy_executor::main]
async fn main(_spawner: Spawner) -> ! {
    let chip = embassy_rp::init(embassy_rp::config::Config::default());

    static PICO: StaticCell<Pico> = StaticCell::new();
    let pico: &'static Pico = PICO.init(Pico {
        led: RefCell::new(Output::new(chip.PIN_25, Level::Low)),
        adc: RefCell::new((
            Adc::new_blocking(chip.ADC, adc::Config::default()),
            adc::Channel::new_temp_sensor(chip.ADC_TEMP_SENSOR),
        )),
    });
    static DEVICE: StaticCell<Device> = StaticCell::new();
    let device: &'static Device = DEVICE.init(Device::new(pico));
    static CONNECTION: ConstStaticCell<DeviceMemory> = ConstStaticCell::new(DeviceMemory::new());
    let config = Config::new(Uuid::from_bytes(*b"farref on a pico"), |bytes| bytes.fill_with(RoscRng::next_u8));
    let connection: &'static DeviceConnection = CONNECTION.take().connection(config);
    static CLIENT: StaticCell<Client> = StaticCell::new();
    let client: &'static Client = CLIENT.init_with(|| Client::new(device, connection.peer()));

    static BYTES: ConstStaticCell<[[u8; 256]; 2]> = ConstStaticCell::new([[0; 256]; 2]);
    let [to_send, received] = BYTES.take();
    let serial = uart::Config::default(); // 115,200 baud, 8N1
    let serial = BufferedUart::new(chip.UART0, chip.PIN_0, chip.PIN_1, Interrupts, to_send, received, serial);
    let (mut sender, receiver) = serial.split();
    let mut receiver = Receiver(receiver);

    static LINE: ConstStaticCell<Line> = ConstStaticCell::new(Line::new());
    let buffers = LINE.take();
    let mut served = Served::new(client);
    let endpoint = Endpoint::new(connection, &mut served);
    let sessions = async {
        loop {
            endpoint.line(&mut receiver, &mut sender, buffers, LineConfig::default()).await;
        }
    };
    join(sessions, client.run()).await.0
}

/// A byte that the UART could not make sense of is one that was lost, as others are; the line goes on.
struct Receiver(BufferedUartRx);

impl embedded_io_async::ErrorType for Receiver {
    type Error = Infallible;
}

impl embedded_io_async::Read for Receiver {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        loop {
            if let Ok(count) = self.0.read(buffer).await {
                return Ok(count);
            }
        }
    }
}

/// What the board does for the device.
struct Pico {
    led: RefCell<Output<'static>>,
    adc: RefCell<(Adc<'static, Blocking>, adc::Channel<'static>)>,
}

impl Hardware for Pico {
    fn name(&self) -> &'static str {
        "Raspberry Pi Pico"
    }

    fn set_led(&self, on: bool) {
        self.led.borrow_mut().set_level(on.into());
    }

    /// By the formula of the data sheet, for 3.3 V. What could not be measured is no number.
    fn temperature(&self) -> f32 {
        let (adc, sensor) = &mut *self.adc.borrow_mut();
        match adc.blocking_read(sensor) {
            Ok(raw) => 27.0 - (f32::from(raw) * 3.3 / 4096.0 - 0.706) / 0.001_721,
            Err(_) => f32::NAN,
        }
    }

    fn memory(&self) -> Memory {
        stack::memory()
    }

    fn reboot(&self) {
        cortex_m::peripheral::SCB::sys_reset()
    }
}

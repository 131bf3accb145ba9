//! Whether the PC runs on its battery.

#[cfg(target_os = "linux")]
pub(super) fn on_battery() -> Option<bool> {
    linux::on_battery(std::path::Path::new("/sys/class/power_supply"))
}

#[cfg(windows)]
pub(super) fn on_battery() -> Option<bool> {
    use windows_sys::Win32::System::Power::{GetSystemPowerStatus, SYSTEM_POWER_STATUS};

    const NO_BATTERY: u8 = 128;
    const UNKNOWN: u8 = 255;
    let mut status = SYSTEM_POWER_STATUS::default();
    #[expect(unsafe_code, reason = "the system tells by this call only")]
    // SAFETY: the pointer is to a live structure of the expected type.
    let told = unsafe { GetSystemPowerStatus(&raw mut status) } != 0;
    if !told || status.BatteryFlag == UNKNOWN || status.BatteryFlag & NO_BATTERY != 0 {
        return None;
    }
    match status.ACLineStatus {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

/// macOS tells by IOKit only, which is not asked: a job there runs on battery, too.
#[cfg(not(any(target_os = "linux", windows)))]
pub(super) const fn on_battery() -> Option<bool> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, path::Path};

    /// Reads the kernel's list of supplies. Batteries of a mouse or a phone say that they serve a device.
    pub(super) fn on_battery(supplies: &Path) -> Option<bool> {
        let mut battery = None;
        for supply in fs::read_dir(supplies).ok()?.flatten() {
            let read = |name: &str| fs::read_to_string(supply.path().join(name)).ok();
            let is = |name: &str, value: &str| read(name).is_some_and(|text| text.trim() == value);
            if is("type", "Battery") && !is("scope", "Device") {
                let discharges = is("status", "Discharging");
                battery = Some(battery.unwrap_or(false) || discharges);
            }
        }
        battery
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_a_battery_of_the_pc_that_discharges_counts() {
            check(&[], None);
            check(&[("AC", "Mains", "", "")], None);
            check(&[("BAT0", "Battery", "Discharging", "")], Some(true));
            check(&[("BAT0", "Battery", "Charging", "")], Some(false));
            check(&[("BAT0", "Battery", "Full", ""), ("AC", "Mains", "", "")], Some(false));
            check(
                &[("BAT0", "Battery", "Discharging", ""), ("BAT1", "Battery", "Unknown", "")],
                Some(true),
            );
            check(&[("hid-mouse", "Battery", "Discharging", "Device")], None);
        }

        #[track_caller]
        fn check(supplies: &[(&str, &str, &str, &str)], expected: Option<bool>) {
            let folder = tempfile::tempdir().unwrap();
            for (name, kind, status, scope) in supplies {
                let supply = folder.path().join(name);
                fs::create_dir(&supply).unwrap();
                fs::write(supply.join("type"), format!("{kind}\n")).unwrap();
                fs::write(supply.join("status"), format!("{status}\n")).unwrap();
                fs::write(supply.join("scope"), format!("{scope}\n")).unwrap();
            }
            assert_eq!(on_battery(folder.path()), expected, "{supplies:?}");
        }
    }
}

import CSystem
import Glibc

/// The Date field (RFC 9110, 6.6.1), made once a second.
///
/// - Note: `@unchecked Sendable` holds because only the connections and the server use it, all on the event loop.
final class HTTPDate: @unchecked Sendable {
    private var second: time_t = 0
    private var bytes: [UInt8] = []

    /// With its name and the end of its line.
    func line() -> [UInt8] {
        let now = time(nil)
        if now != second {
            second = now
            bytes = Array("Date: \(HTTPDate.format(now))\r\n".utf8)
        }
        return bytes
    }

    static func format(_ time: time_t) -> String {
        let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        var time = time
        var parts = unsafe tm()
        unsafe gmtime_r(&time, &parts)
        let (day, month, year, weekday) = unsafe (
            parts.tm_mday, Int(parts.tm_mon), parts.tm_year + 1900, Int(parts.tm_wday)
        )
        let clock = unsafe [parts.tm_hour, parts.tm_min, parts.tm_sec].map(two).joined(separator: ":")
        return "\(days[weekday]), \(two(day)) \(months[month]) \(year) \(clock) GMT"
    }

    private static func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
}

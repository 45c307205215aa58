/// Reads server-sent events (WHATWG HTML, 9.2.6) from bytes as they come.
struct EventStreamReader {
    struct Event: Equatable {
        var name = "message"
        var id: UInt64?
        var data = ""
    }

    private var partial: [UInt8] = []
    private var event = Event()
    private var hasData = false

    /// The events that `bytes` complete.
    mutating func read(_ bytes: [UInt8]) -> [Event] {
        partial += bytes
        var events: [Event] = []
        var start = 0
        while let end = partial[start...].firstIndex(of: UInt8(ascii: "\n")) {
            if let event = take(String(decoding: partial[start..<end], as: UTF8.self)) { events.append(event) }
            start = end + 1
        }
        partial.removeFirst(start)
        return events
    }

    private mutating func take(_ line: String) -> Event? {
        if line.isEmpty {
            defer { (event, hasData) = (Event(), false) }
            return hasData ? event : nil
        }
        guard let colon = line.firstIndex(of: ":") else { return nil }
        var value = line[line.index(after: colon)...]
        if value.first == " " { value.removeFirst() }
        switch line[..<colon] {
        case "event": event.name = String(value)
        case "id": event.id = UInt64(value)
        case "data":
            event.data += (hasData ? "\n" : "") + value
            hasData = true
        default: break
        }
        return nil
    }
}

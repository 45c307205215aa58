import Glibc

/// Collects figures and prints them, for people or as JSON lines.
final class Table {
    private let json: Bool
    private var rows: [(benchmark: String, figure: String, value: String)] = []

    init(json: Bool) { self.json = json }

    func add(_ benchmark: String, _ figure: String, _ value: Double, _ unit: String) {
        let rounded = value >= 100 ? String(Int(value.rounded())) : String((value * 100).rounded() / 100)
        rows.append((benchmark, figure, "\(rounded) \(unit)"))
        if json {
            print(#"{"benchmark":"\#(benchmark)","figure":"\#(figure)","value":\#(value),"unit":"\#(unit)"}"#)
            fflush(nil)  // what was measured is shown also when a later step fails
        }
    }

    func finish() {
        guard !json else { return }
        for row in rows { print("| \(row.benchmark) | \(row.figure) | \(row.value) |") }
    }
}

/// The value below which a share of the samples lies.
func percentile(_ samples: [Double], _ share: Double) -> Double {
    let sorted = samples.sorted()
    return sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
}

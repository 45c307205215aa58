import Glibc
import TestSupport

/// `swift run -c release Benchmarks [http|dispatch|recovery|logs|pulse|chaos|soak] [--json] [--minutes N]`: figures of this machine, on the
/// built product. `pulse`, `chaos` and `soak` run only when they are named.
let words = Array(CommandLine.arguments.dropFirst())
let minutes = words.firstIndex(of: "--minutes").flatMap { $0 + 1 < words.count ? Int(words[$0 + 1]) : nil } ?? 1
let names = words.filter { !$0.hasPrefix("-") && Int($0) == nil }
let table = Table(json: words.contains("--json"))
let benchmarks: [(name: String, isDefault: Bool, run: (Table) throws -> Void)] = [
    ("http", true, benchmarkHTTP), ("dispatch", true, benchmarkDispatch), ("recovery", true, benchmarkRecovery),
    ("logs", true, benchmarkLogs),
    ("pulse", false, benchmarkPulse), ("chaos", false, { try benchmarkChaos($0, minutes: minutes) }),
    ("soak", false, { try benchmarkSoak($0, minutes: minutes) }),
]
for name in names where !benchmarks.contains(where: { $0.name == name }) {
    print("unknown benchmark \(name); there are: \(benchmarks.map(\.name).joined(separator: ", "))")
    exit(2)
}
for benchmark in benchmarks where names.isEmpty ? benchmark.isDefault : names.contains(benchmark.name) {
    try benchmark.run(table)
}
table.finish()

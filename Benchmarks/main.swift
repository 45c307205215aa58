import Glibc
import TestSupport

/// `swift run -c release Benchmarks [http|dispatch] [--json]`: figures of this machine, on the built product.
let arguments = CommandLine.arguments.dropFirst()
let names = arguments.filter { !$0.hasPrefix("-") }
let table = Table(json: arguments.contains("--json"))
let benchmarks: [(name: String, run: (Table) throws -> Void)] = [
    ("http", benchmarkHTTP), ("dispatch", benchmarkDispatch),
]
for name in names where !benchmarks.contains(where: { $0.name == name }) {
    print("unknown benchmark \(name); there are: \(benchmarks.map(\.name).joined(separator: ", "))")
    exit(2)
}
for benchmark in benchmarks where names.isEmpty || names.contains(benchmark.name) { try benchmark.run(table) }
table.finish()

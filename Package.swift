// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InferIsolatedConformances"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]
// Test bodies call C through the same wrappers as the product; only the strict memory marks are left out there.
let relaxed = Array(strict.dropFirst())

let package = Package(
    name: "aidevops-worker",
    products: [.executable(name: "aidevops-worker", targets: ["Main"])],
    dependencies: [],
    targets: [
        .target(name: "CSystem", cSettings: [.unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        .target(name: "Supervision", dependencies: ["CSystem"], swiftSettings: strict),
        .target(
            name: "Server", dependencies: ["Supervision", "CSystem"],
            resources: [
                .embedInCode("Dashboard/index.html"), .embedInCode("Dashboard/dashboard.css"),
                .embedInCode("Dashboard/dashboard.js"), .embedInCode("Dashboard/api.js"),
                .embedInCode("Dashboard/task.js"), .embedInCode("Dashboard/steps.js"),
                .embedInCode("API/openapi.json"),
            ],
            swiftSettings: strict),
        .executableTarget(name: "Main", dependencies: ["Server", "Supervision", "CSystem"], swiftSettings: strict),
        .target(
            name: "TestSupport", dependencies: ["Supervision", "CSystem"], path: "Tests/TestSupport",
            swiftSettings: relaxed),
        .testTarget(name: "SupervisionTests", dependencies: ["Supervision", "TestSupport"], swiftSettings: relaxed),
        .testTarget(
            name: "ServerTests", dependencies: ["Server", "Supervision", "TestSupport"], swiftSettings: relaxed),
        .testTarget(name: "EndToEndTests", dependencies: ["Main", "TestSupport"], swiftSettings: relaxed),
        .executableTarget(
            name: "Benchmarks", dependencies: ["Server", "Supervision", "CSystem", "TestSupport"], path: "Benchmarks",
            exclude: ["peers"],
            swiftSettings: relaxed),
    ],
    swiftLanguageModes: [.v6]
)

// libFuzzer brings its own main: the target is there only for Tests/Fuzz/run.sh.
if Context.environment["FUZZ"] != nil {
    package.products.append(.executable(name: "Fuzz", targets: ["Fuzz"]))
    package.targets.append(
        .executableTarget(
            name: "Fuzz", dependencies: ["Server", "Supervision"], path: "Tests/Fuzz", exclude: ["run.sh", "corpus"],
            swiftSettings: relaxed + [.unsafeFlags(["-parse-as-library"])]))
}

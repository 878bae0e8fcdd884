"""What enhanced CT, MR and PET say of their acquisition, as validators want it."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid


def of(**elements: Any) -> Dataset:
    """Return a data set with these elements, by keyword."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Item of a code sequence."""
    return of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def headers_of(kind: str) -> Dataset:
    """Elements of the whole image, for "enhanced CT", "enhanced MR" or "enhanced PT"."""
    return {"enhanced CT": Dataset, "enhanced MR": _mr, "enhanced PT": _pt}[kind]()


def groups_of(kind: str) -> Dataset:
    """Functional groups of all frames."""
    makers = {"enhanced CT": _ct_groups, "enhanced MR": _mr_groups, "enhanced PT": _pt_groups}
    return makers[kind]()


def _frame_type() -> Dataset:
    return of(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )


def _ct_groups() -> Dataset:
    return of(
        CTImageFrameTypeSequence=[_frame_type()],
        IrradiationEventIdentificationSequence=[of(IrradiationEventUID=generate_uid())],
        CTAcquisitionTypeSequence=[
            of(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
        ],
        CTAcquisitionDetailsSequence=[
            of(
                RotationDirection="CW",
                RevolutionTime=0.5,
                SingleCollimationWidth=0.6,
                TotalCollimationWidth=38.4,
                TableHeight=150.0,
                GantryDetectorTilt=0.0,
                DataCollectionDiameter=500.0,
            )
        ],
        CTTableDynamicsSequence=[
            of(TableSpeed=40.0, TableFeedPerRotation=20.0, SpiralPitchFactor=1.0)
        ],
        CTPositionSequence=[
            of(
                TablePosition=0.0,
                DataCollectionCenterPatient=[0.0, 0.0, 0.0],
                ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
            )
        ],
        CTGeometrySequence=[
            of(DistanceSourceToDetector=1000.0, DistanceSourceToDataCollectionCenter=500.0)
        ],
        CTReconstructionSequence=[
            of(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel="B30f",
                ConvolutionKernelGroup="BRAIN",
                ReconstructionDiameter=300.0,
                ReconstructionPixelSpacing=[0.8, 0.5],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            of(
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=200.0,
                ExposureInmAs=100.0,
                ExposureModulationType="NONE",
                CTDIvol=10.0,
            )
        ],
        CTXRayDetailsSequence=[
            of(KVP=120.0, FocalSpots=[1.2], FilterType="FLAT", FilterMaterial=["ALUMINUM"])
        ],
    )


def _mr() -> Dataset:
    return of(
        ResonantNucleus="1H",
        KSpaceFiltering="NONE",
        MagneticFieldStrength=1.5,
        ApplicableSafetyStandardAgency="IEC",
        ComplexImageComponent="MAGNITUDE",
        AcquisitionContrast="PROTON_DENSITY",
        PulseSequenceName="se",
        MRAcquisitionType="2D",
        EchoPulseSequence="SPIN",
        MultipleSpinEcho="NO",
        MultiPlanarExcitation="NO",
        PhaseContrast="NO",
        TimeOfFlightContrast="NO",
        SteadyStatePulseSequence="NONE",
        EchoPlanarPulseSequence="NO",
        SaturationRecovery="NO",
        SpectrallySelectedSuppression="NONE",
        OversamplingPhase="NONE",
        GeometryOfKSpaceTraversal="RECTILINEAR",
        RectilinearPhaseEncodeReordering="LINEAR",
        SegmentedKSpaceTraversal="SINGLE",
        NumberOfKSpaceTrajectories=1,
    )


def _mr_groups() -> Dataset:
    frame_type = _frame_type()
    frame_type.ComplexImageComponent = "MAGNITUDE"
    frame_type.AcquisitionContrast = "PROTON_DENSITY"
    return of(
        MRImageFrameTypeSequence=[frame_type],
        MRTimingAndRelatedParametersSequence=[
            of(
                RepetitionTime=2300,
                FlipAngle=90,
                EchoTrainLength=1,
                RFEchoTrainLength=1,
                GradientEchoTrainLength=0,
                GradientOutputType="DB_DT",
                GradientOutput=1.0,
                SpecificAbsorptionRateSequence=[
                    of(
                        SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY",
                        SpecificAbsorptionRateValue=0.1,
                    )
                ],
                OperatingModeSequence=[
                    of(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL")
                ],
            )
        ],
        MREchoSequence=[of(EffectiveEchoTime=22.0)],
        MRModifierSequence=[
            of(
                InversionRecovery="NO",
                FlowCompensation="NONE",
                Spoiling="NONE",
                T2Preparation="NO",
                SpectrallySelectedExcitation="NONE",
                SpatialPresaturation="NONE",
                PartialFourier="NO",
                ParallelAcquisition="NO",
            )
        ],
        MRImagingModifierSequence=[
            of(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                TransmitterFrequency=63.8,
                PixelBandwidth=130,
            )
        ],
        MRReceiveCoilSequence=[
            of(
                ReceiveCoilName="HEAD",
                ReceiveCoilManufacturerName="",
                ReceiveCoilType="HEAD",
                QuadratureReceiveCoil="NO",
            )
        ],
        MRTransmitCoilSequence=[
            of(TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY")
        ],
        MRFOVGeometrySequence=[
            of(
                InPlanePhaseEncodingDirection="ROW",
                MRAcquisitionFrequencyEncodingSteps=20,
                MRAcquisitionPhaseEncodingStepsInPlane=24,
                PercentSampling=100,
                PercentPhaseFieldOfView=100,
            )
        ],
        MRAveragesSequence=[of(NumberOfAverages=1)],
    )


def _pt() -> Dataset:
    isotope = of(
        RadiopharmaceuticalAgentNumber=1,
        RadionuclideCodeSequence=[code("C-111A1", "SRT", "^18^Fluorine")],
        RadiopharmaceuticalStartDateTime="20240102080000",
        RadiopharmaceuticalCodeSequence=[code("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")],
        AdministrationRouteCodeSequence=[code("G-D101", "SRT", "Intravenous route")],
        RadionuclideTotalDose=3.5e8,
        RadionuclideHalfLife=6586.2,
        RadionuclidePositronFraction=0.967,
        Radiopharmaceutical="FDG",
    )
    view = code("G-A138", "SRT", "Coronal")
    view.ViewModifierCodeSequence = []
    return of(
        RadiopharmaceuticalInformationSequence=[isotope],
        Units="BQML",
        CountsSource="EMISSION",
        DecayCorrected="YES",
        DecayCorrectionDateTime="20240102091600",
        AttenuationCorrected="NO",
        ScatterCorrected="NO",
        DeadTimeCorrected="YES",
        GantryMotionCorrected="NO",
        PatientMotionCorrected="NO",
        CountLossNormalizationCorrected="YES",
        RandomsCorrected="NO",
        NonUniformRadialSamplingCorrected="NO",
        SensitivityCalibrated="YES",
        DetectorNormalizationCorrection="YES",
        AcquisitionStartCondition="MANUAL",
        AcquisitionTerminationCondition="TIME",
        TerminationTimeThreshold=1.0,
        TypeOfDetectorMotion="NONE",
        TransverseDetectorSeparation=1.0,
        AxialDetectorDimension=1.0,
        CollimatorType="NONE",
        CoincidenceWindowWidth=4.0,
        EnergyWindowRangeSequence=[of(EnergyWindowLowerLimit=440, EnergyWindowUpperLimit=650)],
        TableMotion="STATIC",
        TimeOfFlightInformationUsed="FALSE",
        ViewCodeSequence=[view],
    )


def _pt_groups() -> Dataset:
    return of(
        PETFrameTypeSequence=[_frame_type()],
        RadiopharmaceuticalUsageSequence=[of(RadiopharmaceuticalAgentNumber=1)],
        PETFrameAcquisitionSequence=[
            of(
                TableHeight=150.0,
                GantryDetectorTilt=0.0,
                GantryDetectorSlew=0.0,
                DataCollectionDiameter=500.0,
            )
        ],
        PETDetectorMotionDetailsSequence=[of(RotationDirection="CW", RevolutionTime=1.0)],
        PETPositionSequence=[
            of(
                TablePosition=0.0,
                DataCollectionCenterPatient=[0.0, 0.0, 0.0],
                ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0],
            )
        ],
        PETFrameCorrectionFactorsSequence=[
            of(
                PrimaryPromptsCountsAccumulated=1,
                SliceSensitivityFactor=1,
                DecayFactor=1,
                DeadTimeFactor=1,
                ScatterFractionFactor=0,
            )
        ],
        PETReconstructionSequence=[
            of(
                ReconstructionType="2D",
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                IterativeReconstructionMethod="NO",
                ReconstructionDiameter=300.0,
            )
        ],
    )
